"""`vsr relay`: receives a live stream, upscales it and sends it to one or several outputs.

    input/     ingest -> mailbox      reads, decodes and reconnects, on a thread
    playout    the loop between them: clock, ladder, audio, repeated frames
    ladder/    controller, rungs      chooses and runs a network for each frame
    output/    encode -> output       encodes once; one process per output
    status/    board -> server        statistics over HTTP

`relay` prepares a run and completes its report, `supervisor` restarts relays that fail. These
four sub-packages do not import each other; `rtmp/` has what input and output share.
"""
