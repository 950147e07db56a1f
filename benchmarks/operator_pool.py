"""EC2CreateInstanceOperator on 32 worker slots, Airflow's default ``[core] parallelism``.

python -m benchmarks.operator_pool COUNT        # one JSON line
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.endpoint_process import REGION, REPOSITORY, EndpointProcess

SLOTS = 32


def launch_with_operators(endpoint: EndpointProcess, count: int) -> dict[str, Any]:
    """Run the operators in a process of their own and return how they ended."""
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.operator_pool", str(count)],
        cwd=REPOSITORY,
        env={**os.environ, **endpoint.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL"},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def main() -> None:
    from airflow.providers.amazon.aws.operators.ec2 import (  # noqa: PLC0415 - in its process only
        EC2CreateInstanceOperator,
    )

    def launch(number: int) -> str:
        operator = EC2CreateInstanceOperator(
            task_id=f"launch_{number}",
            image_id="ami-0abcdef1234567890",
            region_name=REGION,
            config={"InstanceType": "m7i.large", "SubnetId": "subnet-0123456789abcdef0"},
        )
        try:
            # Without a task instance its link has nowhere to go.
            operator.hook.conn.run_instances(
                **operator.config, ImageId=operator.image_id, MinCount=1, MaxCount=1
            )
        except Exception as error:  # noqa: BLE001 - counted by name
            return type(error).__name__
        return "launched"

    with ThreadPoolExecutor(SLOTS) as pool:
        ends = Counter(pool.map(launch, range(int(sys.argv[1]))))
    launched = ends.pop("launched", 0)
    print(
        json.dumps(
            {"slots": SLOTS, "failed": sum(ends.values()), "ends": {"launched": launched, **ends}}
        )
    )


if __name__ == "__main__":
    main()
