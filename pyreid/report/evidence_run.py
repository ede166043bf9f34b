"""One run of ``pyreid evidence`` in a process of its own: train, evaluate, re-rank, and write it all down.

``python -m pyreid.report.evidence_run JOB`` takes a job as JSON; :mod:`pyreid.report.evidence` starts it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyreid._files import write_json
from pyreid.errors import PyreidError

if TYPE_CHECKING:
    from pyreid.data import ReIDDataset
    from pyreid.evaluation import EvaluationResult
    from pyreid.models.base import ReIDModel
    from pyreid.training import Recipe

RECORD = "run.json"
"""The file that a finished run leaves in its folder."""

SCORES = ("mAP", "rank1", "mINP")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run to make.

    Attributes:
        subset: name of the synthetic data set.
        row: name of the row.
        seed: of the run.
        recipe: file of the row's recipe.
        overrides: ``key=value`` settings of this run.
        folder: of the run.
    """

    subset: str
    row: str
    seed: int
    recipe: str
    overrides: tuple[str, ...]
    folder: str

    @property
    def record(self) -> Path:
        """What the run leaves when it is finished."""
        return Path(self.folder) / RECORD

    @property
    def title(self) -> str:
        """For people: which run it is."""
        return f"{self.subset} {self.row} seed {self.seed}"

    def to_json(self) -> str:
        """The job as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """What :meth:`to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "overrides": tuple(fields["overrides"])})


def run_job(job: Job) -> dict[str, Any]:
    """Train what the job says, or continue it, and write its record.

    Both the untrained network, which has the weights that training starts from, and the trained one are evaluated.

    Returns:
        The record: scores in 0..1, seconds of this process, the recipe with all its settings.
    """
    import torch

    from pyreid.models import create_model, load_weights
    from pyreid.training import load_recipe, train
    from pyreid.training.engine import open_dataset
    from pyreid.training.randomness import seed_everything
    from pyreid.training.run_folder import RunFolder

    started = time.perf_counter()
    torch.set_num_threads(1)
    recipe = load_recipe(job.recipe, job.overrides)
    folder = RunFolder(Path(job.folder))
    # A run that was interrupted in its first epoch has nothing to resume and starts anew.
    resume = folder.last_checkpoint.is_file()
    trained = train(recipe, output_dir=folder.root, resume=resume, overwrite=not resume, progress=False)
    dataset = open_dataset(recipe)
    seed_everything(recipe.seed)
    model = create_model(recipe.model.name, num_classes=dataset.num_train_ids, **recipe.model.overrides)
    untrained = _evaluate(model, dataset, recipe)[0]
    load_weights(model, trained.last_checkpoint)
    scores, reranked = _evaluate(model, dataset, recipe)
    record = {
        "subset": job.subset,
        "row": job.row,
        "seed": recipe.seed,
        "untrained": untrained,
        "scores": scores,
        "reranked": reranked,
        "steps": trained.history[-1]["step"],
        "parameters": sum(value.numel() for value in model.parameters()),
        "resumed": resume,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "torch": torch.__version__,
        "recipe": recipe.model_dump(mode="json"),
    }
    write_json(job.record, record)
    return record


def _evaluate(model: ReIDModel, dataset: ReIDDataset, recipe: Recipe) -> tuple[dict[str, float], dict[str, float]]:
    """The scores as the recipe says, and those with k-reciprocal re-ranking at its published parameters."""
    from pyreid.evaluation import EvaluationResult
    from pyreid.retrieval import KReciprocal
    from pyreid.training.datamodule import image_input
    from pyreid.training.features import choose_protocol, evaluate_features, extract_test_features

    settings = recipe.evaluation
    features = extract_test_features(
        model, dataset, images=image_input(model, recipe.data), flip=settings.flip, batch_size=settings.batch_size
    )
    protocol = choose_protocol(dataset, settings)
    found = []
    for rerank in (None, KReciprocal()):
        result = evaluate_features(features, settings, protocol=protocol, rerank=rerank)
        assert isinstance(result, EvaluationResult)  # both sets are evaluated image by image
        found.append(_scores(result))
    return found[0], found[1]


def _scores(result: EvaluationResult) -> dict[str, float]:
    return dict(zip(SCORES, (result.map, result.rank(1), result.minp), strict=True))


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # never written to: its end says that the process which started this one is gone
    os._exit(1)


def main(text: str) -> int:
    """The process: 0 when the record is written."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run_job(Job.from_json(text))
    except (PyreidError, ValueError, OSError) as error:
        print(f"pyreid: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the thread that watches the parent still reads
