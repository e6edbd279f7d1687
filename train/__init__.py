"""Train the papers' networks and write `engines/`: `python -m train --help` from a checkout.

What flows: a recipe and folders of images -> patches -> steps -> a checkpoint -> ONNX.

    data/     files -> RGB, MATLAB's bicubic, real video encodes, patches; downloads of data sets
    nets/     the papers' networks in training form
    recipes/  settings of trainings, as data: `paper`, `ours`, `stream`, `sharp`, `gan`
    fit/      recipe, start weights, losses and critics, the loop, its checkpoints
    measure/  PSNR, SSIM, LPIPS, NIQE on pictures and compressed clips, beside the papers' figures
    ship/     deploy form, ONNX, int8, the manifest; `provenance.toml` (what was done),
              `reproduce` (doing it again), model cards and their crops; weights of others

Repo-only: nothing in `vsr/` imports this package, and this package imports nothing from
`vsr/`; they meet in the files of `engines/`. It needs torch and Lightning Fabric (extra `dev`).
"""
