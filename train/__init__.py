"""Train the papers' networks and write `engines/`: `python -m train --help` from a checkout.

Data flow: a recipe and image folders -> patches -> training steps -> a checkpoint -> ONNX.

    data/     reading images, MATLAB's bicubic, video encoding, patches; data set downloads
    nets/     the papers' networks in training form
    recipes/  training settings as data: `paper`, `ours`, `stream`, `sharp`, `gan`
    fit/      recipes, initial weights, losses and critics, the training loop, checkpoints
    measure/  PSNR, SSIM, LPIPS, NIQE on images and compressed clips, compared with the papers
    ship/     deploy form, ONNX, int8, the manifest; `provenance.toml` (record of the trainings),
              `reproduce` (repeats them), model cards and their crops; import of other weights

Repo-only: nothing in `vsr/` imports this package, and this package imports nothing from
`vsr/`; they share only the files in `engines/`. It needs torch and Lightning Fabric (extra `dev`).
"""
