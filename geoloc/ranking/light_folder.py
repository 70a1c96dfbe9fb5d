"""A light ranker's folder, from train_light.py, but for its network. Reading it needs no torch.

``light.json``         what it is, what it learned from, and how it did on photographers that it had not seen
``light.safetensors``  its weights; none where the fixed rule was as good
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from geoloc.candidates.pool import Pooling
from geoloc.errors import UsageError
from geoloc.index.store import IndexInfo
from geoloc.storage import Folder, describe

FORMAT = 1
INFO, WEIGHTS = "light.json", "light.safetensors"
NETWORK, RULE = "network", "rule"


@dataclass(frozen=True)
class LightInfo:
    """``light.json``."""

    model: str
    """``network``, or ``rule``: by similarity and region alone."""
    kinds: tuple[str, ...]
    """Of the indexes whose lists it learned from, in their order."""
    encoders: tuple[str, ...]
    """Fingerprints of the encoders that made them."""
    places: int
    """Of a pool, at most."""
    pooling: Pooling
    scale: float
    """Of the rule: similarities times this are logits."""
    indexes: tuple[str, ...] = ()
    """Fingerprints of what it learned with: another order of the same is another list."""
    photos: int = 0
    """That it learned from."""
    authors: int = 0
    learned_without: dict[str, float] = field(default_factory=dict)
    """``acc_1km`` … (percent) on photographers that it had not seen."""
    weights: str = ""
    """Checksum of light.safetensors."""
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """Two with the same give the same scores."""
        decides = {
            k: v
            for k, v in dataclasses.asdict(self).items()
            if k not in ("indexes", "photos", "authors", "learned_without")
        }
        return hashlib.blake2b(json.dumps(decides, sort_keys=True).encode(), digest_size=8).hexdigest()

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), indent=1).encode()

    def check(self, infos: Sequence[IndexInfo], places: int, name: str) -> None:
        """Raises UsageError where its lists are not those of these indexes, or pools have another size."""
        kinds, encoders = tuple(info.kind for info in infos), tuple(info.weights for info in infos)
        if kinds != self.kinds:
            raise UsageError(
                f"--light-ranker {name}: learned from indexes of {', '.join(self.kinds)}, in this order, and --index names "
                f"{', '.join(kinds)}; give it such indexes, or train one for these (train_light.py)"
            )
        if encoders != self.encoders:
            raise UsageError(
                f"--light-ranker {name}: learned from vectors of another encoder; train one for these indexes"
            )
        named = tuple(info.fingerprint for info in infos)
        if named != self.indexes and sorted(named) == sorted(self.indexes):
            raise UsageError(f"--light-ranker {name}: learned from these indexes in another order; name them in that")
        if places != self.places:
            raise UsageError(f"--candidates {places}: --light-ranker {name} learned from {self.places} places a photo")


def read_light(folder: Folder) -> LightInfo:
    """Raises UsageError where there is none that this version reads."""
    option = f"--light-ranker {folder.uri}"
    try:
        content = json.loads(folder.read(INFO))
        if content.get("format") != FORMAT:
            raise UsageError(f"{option}: format {content.get('format')}, this version reads {FORMAT}; train it again")
        return TypeAdapter(LightInfo).validate_python(content)
    except FileNotFoundError as error:
        raise UsageError(f"{option}: no {INFO} there; make one with train_light.py") from error
    except (OSError, ValueError, ValidationError) as error:
        raise UsageError(f"{option}: cannot read {INFO} ({describe(error)})") from error
