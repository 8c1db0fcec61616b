"""How many inputs a fuzzer tries: 100, always the same, in an ordinary run; 20,000 new ones with FUZZ=long.

`@profile` below `@given` applies it to a test.
"""

import os

from hypothesis import HealthCheck, Phase, settings

_COMMON = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True)
_PHASES = (Phase.explicit, Phase.generate, Phase.shrink)

settings.register_profile("ordinary", _COMMON, max_examples=100, derandomize=True, phases=_PHASES)
settings.register_profile("long", _COMMON, max_examples=20_000, phases=_PHASES)

profile = settings.get_profile(os.environ.get("FUZZ", "ordinary"))
