"""The places of photos that locate each other: the model, and what it makes of whole chains."""

from dataclasses import dataclass

import numpy as np

from geoloc.context.chains import Evidence
from geoloc.context.emission import Emission
from geoloc.context.kernels import ANYWHERE, Table, chords2, kernel_densities, mass_within
from geoloc.context.posterior import posterior
from geoloc.context.states import BLOCK, CANDIDATE, FIX, States
from geoloc.context.transition import Transition, rows_of
from geoloc.geo.distance import THRESHOLDS_KM

TRUSTED = 0.98
"""Of a fix, before anything round it is known."""
SAY = 0.3
"""A photo has a say on another where they were taken within 25 km of each other with this probability, by the gap alone."""
PREFERRED = 1e-3
"""By so much of its worth a fix is a better answer than a candidate beside it."""
RADII_KM = (0.2, 1, 5, 25, 75, 200, 400, 750, 1500, 2500, 6000)
"""Within which the probability of an answer is told; the field's thresholds among them."""


@dataclass(frozen=True)
class Model:
    transition: Transition
    emission: Emission
    blur_km: tuple[float, float] = (0.06, 2.0)
    """How far a fix, and a candidate, may lie from the place that it stands for."""
    volume_power: float = 0.83
    ground_gap: float = 9.0
    """log10, with the offset, of the gap whose moves are the shape of the ground round a fix (States.volumes)."""
    smallest_gap: float = 1.0
    unknown_gap: float = 1e9
    """Between photos of a chain of which one has no place in its order."""


@dataclass(frozen=True)
class Joint:
    """Of n photos in the order of their chains, places from the states there are."""

    states: States
    probability: np.ndarray
    """(n, s) of each state; all 0 where nothing in a photo's chain says anything."""
    heard: np.ndarray
    """(n,) bool: some other photo has a SAY."""
    best: np.ndarray
    """(n,) the state that is the answer."""
    within: np.ndarray
    """(n, len(RADII_KM)): probability of the states so near to the answer."""
    by_itself: np.ndarray
    """(n, len(RADII_KM)): what would be so near if nothing were known but the one thing that the answer is of: over the gap to
    that photo, and with an estimate's errors where it is one."""
    likelihood: float
    """Logarithm of that of all that was seen."""

    @property
    def located(self) -> np.ndarray:
        return self.probability.any(1)

    @property
    def places(self) -> np.ndarray:
        """(n, 3) unit vectors."""
        return self.states.points[np.arange(len(self.best)), self.best]

    @property
    def sources(self) -> np.ndarray:
        """(n,) the photo whose place the answer is; itself, where it is one of its own."""
        return self.states.source[np.arange(len(self.best)), self.best]

    @property
    def kinds(self) -> np.ndarray:
        """(n,) FIX or CANDIDATE: what the answer is of."""
        return self.states.kind[np.arange(len(self.best)), self.best]


def locate_together(evidence: Evidence, model: Model) -> Joint:
    """Photos in the order of their chains. A photo that has no neighbour with a place keeps its first candidate."""
    states = States.of(evidence)
    some = states.present.any(1)
    emission = _emission(evidence, states, model) * states.volumes(_ground(model), model.volume_power)
    emission[~some] = 1  # they say nothing, and nothing is said of them
    blurs = (model.blur_km[FIX] * 2**0.5, float(np.hypot(*model.blur_km)), model.blur_km[CANDIDATE] * 2**0.5)
    probability, likelihood = posterior(states, emission, rows_of(evidence.log_gap), model.transition.table(blurs))
    probability[~some] = 0
    others = states.present & (states.source != np.arange(len(evidence))[:, None])
    keeps_first = ~others.any(1) & evidence.shares.any(1) & ~evidence.fixed
    heard = _heard(evidence, states, others, model)
    best, within = _answers(states, probability, keeps_first)
    return Joint(states, probability, heard, best, within, _by_itself(evidence, states, best, model), likelihood)


def _ground(model: Model) -> Table:
    """(2, steps): how the truth may lie round a fix of another photo, and round a candidate."""
    gap = model.ground_gap - model.transition.offset

    def shapes(squared: np.ndarray) -> np.ndarray:
        fix = model.transition.density(squared, gap, model.blur_km[FIX])
        return np.stack([fix, model.emission.density(squared, model.blur_km[CANDIDATE])])

    return Table.of(shapes)


def _emission(evidence: Evidence, states: States, model: Model) -> np.ndarray:
    """(n, s) float32 per km²."""
    own = Table.of(lambda squared: np.stack([model.emission.density(squared, blur) for blur in model.blur_km]))
    fix = Table.of(lambda squared: TRUSTED * kernel_densities(squared)[..., 0] + (1 - TRUSTED) * ANYWHERE)
    kind = states.kind.astype(np.int32)[:, :, None] * own.width
    out = np.full(states.present.shape, ANYWHERE, np.float32)
    fixed, seen = evidence.fixed, evidence.shares.any(1)
    for start in range(0, len(out), 8 * BLOCK):
        part = slice(start, start + 8 * BLOCK)
        steps = Table.steps(chords2(states.points[part], evidence.candidates[part].astype(np.float32)))
        density = np.einsum(
            "nsc,nc->ns", own.values.ravel()[steps + kind[part]], evidence.shares[part].astype(np.float32)
        )
        out[part][seen[part]] = density[seen[part]]
        steps = Table.steps(chords2(states.points[part], evidence.fixes[part, None].astype(np.float32)))
        out[part] *= np.where(fixed[part, None], fix.values[steps[..., 0]] / np.float32(ANYWHERE), 1)
    return out


def _positions(evidence: Evidence) -> np.ndarray:
    """(n,) from the beginning of each chain: the sum of the gaps."""
    sums = np.cumsum(10 ** np.nan_to_num(evidence.log_gap, nan=-np.inf), dtype=np.longdouble)
    begins = np.flatnonzero(np.diff(evidence.chain, prepend=evidence.chain[:1] - 1))
    return (sums - np.repeat(sums[begins], np.diff(np.append(begins, len(sums))))).astype(np.float64)


def _heard(evidence: Evidence, states: States, others: np.ndarray, model: Model) -> np.ndarray:
    position = _positions(evidence)
    gap = np.where(others, np.abs(position[states.source] - position[:, None]), np.inf).min(1)
    near = model.transition.weights(np.log10(np.clip(gap, model.smallest_gap, 1e15))) @ mass_within(np.array(25.0))
    return others.any(1) & (near >= SAY)


def _by_itself(evidence: Evidence, states: States, best: np.ndarray, model: Model) -> np.ndarray:
    photos = np.arange(len(best))
    source, kind = states.source[photos, best], states.kind[photos, best]
    position = _positions(evidence)
    gap = np.log10(np.maximum(np.abs(position - position[source]), model.smallest_gap))
    radii = np.array(RADII_KM)
    moves = np.where(source[:, None] == photos[:, None], 1, model.transition.weights(gap) @ mass_within(radii).T)
    return moves * np.where(kind[:, None] == FIX, 1, model.emission.within(radii))


def _answers(states: States, probability: np.ndarray, keeps_first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The state that is worth most on average, an answer x km off being worth Σ_t 2^(-x/t) over the field's thresholds t, and the
    probability within RADII_KM of it."""
    km = np.array(THRESHOLDS_KM, dtype=float)
    worth = Table.of(lambda squared: (2 ** -(np.sqrt(squared) / km[:, None])).sum(0))
    best, within = np.empty(len(probability), np.int64), np.empty((len(probability), len(RADII_KM)), np.float32)
    for start in range(0, len(probability), BLOCK):
        part = slice(start, start + BLOCK)
        value = np.einsum("nst,nt->ns", worth.values[states.apart(start)], probability[part])
        value *= np.where(states.kind[part] == FIX, 1 + PREFERRED, 1)
        best[part] = np.where(keeps_first[part], 0, np.where(states.present[part], value, -1).argmax(1))
        chosen = states.points[part][np.arange(len(value)), best[part]][:, None]
        to_best = chords2(chosen, states.points[part])[:, 0]
        inside = to_best[:, :, None] <= np.array(RADII_KM, np.float32) ** 2
        within[part] = np.matmul(probability[part, None], inside.astype(np.float32))[:, 0]
    return best, within
