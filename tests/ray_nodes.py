"""A Ray cluster of two nodes on this computer, for tests: `python -m tests.ray_nodes`.

Prints its address. Each line on standard input kills one node, until none is left. The end of
standard input shuts the cluster down.
"""

import os
import sys

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}  # the default of 15 starves workers on a busy machine

from ray.cluster_utils import Cluster


def main() -> None:
    """Run the cluster until standard input ends."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    # separate addresses, or the run would take one node for the computer that it runs on
    nodes = [cluster.add_node(num_cpus=1, node_ip_address=f"127.0.0.{k}") for k in (2, 3)]
    sys.stdout.write(f"{cluster.address}\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    cluster.shutdown()


if __name__ == "__main__":
    main()
