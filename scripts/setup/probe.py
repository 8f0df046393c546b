"""Describes the Python that runs it, as JSON on stdout. Imports nothing but the standard library,
installs nothing, and runs on any Python 3, so that one too old can say so."""

import importlib.util
import json
import sys
import sysconfig


def installed_packages():
    try:
        from importlib import metadata
    except ImportError:  # Python < 3.8
        return {}
    packages = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        # The first on sys.path is the one that an import finds.
        if name and distribution.version:
            normalised = name.lower().replace("_", "-").replace(".", "-")
            packages.setdefault(normalised, distribution.version)
    return packages


json.dump(
    {
        "executable": sys.executable,
        "version": list(sys.version_info[:3]),
        "abi": sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag,
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "hasVenv": all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
        "hasPip": importlib.util.find_spec("pip") is not None,
        "packages": installed_packages(),
    },
    sys.stdout,
)
