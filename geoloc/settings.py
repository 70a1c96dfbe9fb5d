"""Settings that decide results, as entries inside one another: compared, and listed."""


def differences(before: dict, now: dict, prefix: str = "") -> list[str]:
    """In words, each entry by its name, that of one inside another with a dot.

    >>> differences({"candidates": 8, "density": {"sigma_km": 445.0}}, {"candidates": 8, "density": {"sigma_km": 100.0}})
    ['density.sigma_km was 445.0, is now 100.0']
    """
    found = []
    for key in sorted(before.keys() | now.keys()):
        name, one, other = prefix + key, _plain(before.get(key)), _plain(now.get(key))
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, f"{name}.")
        elif isinstance(one, dict) or isinstance(other, dict):
            found += [f"{name} is {'gone' if other is None else 'new'}"]
        elif one != other:
            found.append(f"{name} was {one!r}, is now {other!r}")
    return found


def flattened(settings: dict, prefix: str = "") -> dict:
    """Entries inside others by their names with a dot.

    >>> flattened({"candidates": 8, "density": {"sigma_km": 445.0}})
    {'candidates': 8, 'density.sigma_km': 445.0}
    """
    flat = {}
    for name, value in settings.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _plain(value: object) -> object:
    """As JSON has it."""
    return list(value) if isinstance(value, tuple) else value
