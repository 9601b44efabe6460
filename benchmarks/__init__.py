"""What metering costs, side by side in one run: `python -m benchmarks`, or `make bench`.

    in_process   CPU per chunk that `instrument` adds to the openai client
    relaying     CPU per event of the gateway beside the same relay with its meter off
    booking      how long a reservation takes to be durable, and how long an ending takes
    counting     how long texts take to count, and those that are made to take long

Ratios hold better than figures: both sides of each run one after the other on the same cores.
"""
