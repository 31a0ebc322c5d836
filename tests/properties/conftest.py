"""The profile of the properties: few examples, the same in each run; `benchmarks/properties.py` runs many."""

from hypothesis import HealthCheck, Phase, settings


settings.register_profile(
    "few",
    max_examples=12,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[*HealthCheck],
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("few")
