"""What one step of scheduling costs with 10, 1,000 and 10,000 requests waiting.

    python benchmarks/scheduling.py [--running 64] [--steps 2000]

The runner draws a constant, so that only scheduler, block pool and batch building are timed. The figures of the three
lines should agree within the noise of the machine: nothing in a step looks at the waiting requests.
"""

from __future__ import annotations

import argparse
import statistics
import time

from corral.engine.batch import build_batch
from corral.engine.block_pool import BlockPool
from corral.engine.budget import StepBudget
from corral.engine.sampler import build_sampling_arrays
from corral.engine.scheduler import Scheduler
from corral.engine.sequence import SequenceGroup, SequenceGroupSpec
from corral.sampling_params import SamplingParams

MAX_MODEL_LEN = 1 << 14
PROMPT_TOKENS = 100


def make_scheduler(num_running: int, num_waiting: int) -> Scheduler:
    """`num_running` sequences decode for ever; the others wait behind them."""
    scheduler = Scheduler(BlockPool(1 << 16), StepBudget(512, 150.0), max_running=num_running)
    for i in range(num_running + num_waiting):
        prompt = [(i + j) % 1000 for j in range(PROMPT_TOKENS)]
        spec = SequenceGroupSpec(f"r{i}", prompt, SamplingParams(temperature=0.0))
        scheduler.add(SequenceGroup(spec, first_seq_id=i, max_model_len=MAX_MODEL_LEN, vocab_size=1000))
    while len(scheduler.running) < num_running or any(s.num_new_tokens > 1 for s in scheduler.running):
        batch = scheduler.schedule()
        scheduler.update(batch, [1] * sum(row.is_last for row in batch.rows))
    return scheduler


def measure(scheduler: Scheduler, num_steps: int) -> tuple[float, float]:
    """Median microseconds of a step's scheduling (schedule + update), and of building its arrays."""
    scheduling, building = [], []
    for _ in range(num_steps):
        started = time.perf_counter()
        batch = scheduler.schedule()
        scheduled = time.perf_counter()
        build_batch(batch.rows)
        build_sampling_arrays([row.sequence for row in batch.rows])
        built = time.perf_counter()
        scheduler.update(batch, [1] * len(batch.rows))
        building.append(built - scheduled)
        scheduling.append(time.perf_counter() - started - building[-1])
    return 1e6 * statistics.median(scheduling), 1e6 * statistics.median(building)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--running", type=int, default=64, help="sequences that decode (default 64)")
    parser.add_argument("--steps", type=int, default=2000, help="steps timed (default 2000)")
    options = parser.parse_args()
    print(f"{options.running} running, median of {options.steps} steps, microseconds a step")
    print(f"{'waiting':>8} {'schedule + update':>18} {'arrays':>8} {'abort one':>10}")
    for num_waiting in (10, 1_000, 10_000):
        scheduler = make_scheduler(options.running, num_waiting)
        scheduling, building = measure(scheduler, options.steps)
        started = time.perf_counter()
        scheduler.abort(f"r{options.running + num_waiting // 2}")
        aborting = 1e6 * (time.perf_counter() - started)
        print(f"{num_waiting:>8} {scheduling:>18.1f} {building:>8.1f} {aborting:>10.1f}")


if __name__ == "__main__":
    main()
