"""Settings that decide results, compared."""


def differences(before: dict, now: dict) -> list[str]:
    """In words, each entry by its name, that of one inside another with a dot.

    >>> differences({"candidates": 8, "density": {"sigma_km": 445.0}}, {"candidates": 8, "density": {"sigma_km": 100.0}})
    ['density.sigma_km was 445.0, is now 100.0']
    """
    one, other = _flat(before), _flat(now)
    return [
        f"{name} was {one.get(name)!r}, is now {other.get(name)!r}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def _flat(settings: dict, prefix: str = "") -> dict:
    """Tuples as lists, as JSON has them."""
    flat = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
