"""A Ray of two computers that are this one, for tests: `python -m tests.ray_nodes`.

Prints its address. Each line that comes in ends one of the computers at once, until none is left;
the end of the standard input ends it all.
"""

import os
import sys

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}  # 15 starves where much runs

from ray.cluster_utils import Cluster


def main() -> None:
    """Serve until the standard input ends."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    # addresses of their own, or the run would take one of them for the computer it runs on
    nodes = [cluster.add_node(num_cpus=1, node_ip_address=f"127.0.0.{k}") for k in (2, 3)]
    sys.stdout.write(f"{cluster.address}\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    cluster.shutdown()


if __name__ == "__main__":
    main()
