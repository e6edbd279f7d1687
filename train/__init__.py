"""Train the papers' networks and write `engines/`: `python -m train --help` from a checkout.

What flows: a recipe and folders of images -> patches -> steps -> a checkpoint -> ONNX.

    recipe.py, recipes/   settings of a training, as data       fetch.py, download.py  data sets
    images.py, resize.py  files -> RGB, MATLAB's bicubic        degrade.py   real video encodes
    data.py               pictures -> the patches of a step     nets/        the papers' networks
    initialise.py, gan.py starting weights; PCARN's critics     loop.py      the training loop
    checkpoint.py         the loop's files                      imports.py   weights of others
    watch.py              log, time left, TensorBoard           counting.py  parameters, MultAdds
    deploy.py, export.py  cheaper forms, ONNX, the manifest     cards.py     engines/README.md
    evaluate.py, metrics.py, perceptual.py, niqe.py             scores on pictures
    compressed.py, report.py, sheet.py, shipped.py, papers.py   on video; tables; beside the papers

Repo-only: nothing in `vsr/` imports this package, and this package imports nothing from
`vsr/`; they meet in the files of `engines/`. It needs torch and Lightning Fabric (extra `dev`).
"""
