"""`vsr relay`: receives a live stream, upscales it and sends it to one or several outputs.

    input/     ingest -> mailbox      reads, decodes and reconnects, on a thread
    playout    the loop between them: clock, ladder, audio, repeated pictures
    ladder/    controller, rungs      chooses and runs a network for each picture
    output/    encode -> output       encodes once; every output has a process
    status/    board -> server        figures over HTTP

`relay` prepares a run and completes its report, `supervisor` restarts relays that fail. The four
sub-packages import nothing of one another.
"""
