"""Workers of a ranker's training that share the model out (ZeRO-3), as processes: python -m tests.training.two_workers RANK WORLD PORT
BASE FOLDER. Each writes what it came to, as JSON."""

import dataclasses
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np

from geoloc.ranking.options import PromptOptions
from geoloc.ranking.prompt import PromptPlace
from geoloc.training.options import RankerTrainingOptions
from geoloc.training.questions import Question

PROMPT = PromptOptions(max_pixels=4 * 28 * 28, min_pixels=4 * 28 * 28)
TRAINING = RankerTrainingOptions(photos_a_step=2, lr=1e-2, lora_rank=4, lora_dropout=0.0, zero=3, max_bad_turns=1)
STEPS, PHOTOS = 6, 13


def questions() -> list[Question | None]:
    """Two a step, and one more: one whose picture cannot be read, and one too long to be asked."""
    random = np.random.default_rng(0)

    def picture() -> np.ndarray:
        return random.integers(0, 255, (28, 56, 3), np.uint8)

    def question(number: int) -> Question:
        words = "Somewhere " * (4_000 if number == 8 else 1)
        places = [PromptPlace(*random.uniform(-80, 80, 2).tolist(), words) for _ in range(4)]
        return Question(picture(), places, [picture() for _ in places], [], random.uniform(1, 5_000, 4))

    made = [question(number) for number in range(PHOTOS)]
    return [None if number == 5 else one for number, one in enumerate(made)]


def overflow_at(trainee, question: Question) -> None:
    """As half-precision numbers may, of one picture."""
    ask = trainee._prompts

    def overflowing(asked: Question | None):
        prompts = ask(asked)
        if asked is question:
            prompts.prefix.image.features.fill_(np.nan)
        return prompts

    trainee._prompts = overflowing


def main(rank: int, world: int, port: int, base: str, folder: Path) -> None:
    os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch
    import torch.distributed as dist

    from geoloc.training import ranker_steps

    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world, timeout=timedelta(seconds=60))
    whole = ranker_steps.deepspeed_config

    def gathered(*arguments) -> dict:  # also what is so small that it would be whole everywhere
        config = whole(*arguments)
        config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return config

    ranker_steps.deepspeed_config = gathered

    def trainee(**changes) -> ranker_steps.RankerTrainee:
        training = dataclasses.replace(TRAINING, **changes)
        return ranker_steps.RankerTrainee(base, training, PROMPT, STEPS, torch.device("cpu"), rank, world)

    photos, share = questions(), TRAINING.share(world)

    def learn(subject: ranker_steps.RankerTrainee, first: int, last: int) -> None:
        for step in range(first, last):
            subject.step(step, photos[2 * step : 2 * step + 2][rank * share : (rank + 1) * share])

    first = trainee()
    learn(first, 0, 3)
    first.validate(3, photos[rank::world])
    first.save(folder, 3)
    dist.barrier()
    second = trainee(seed=5)  # weights of its own, until it loads
    done = second.load(folder)
    learn(second, done, STEPS)
    second.validate(STEPS, photos[rank::world])
    found = {"losses": [point["loss"] for point in second.history], "validations": second.validations}

    overflow_at(second, photos[0])
    second.step(0, photos[rank : rank + 1])
    found |= {"bad_turns": second.bad_turns, "finite": all(p.isfinite().all().item() for _, p in second._named)}
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
