"""How the workers of a loader start."""

import multiprocessing

import pytest


@pytest.fixture(params=["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def start_method(request):
    """How workers start: by fork before Python 3.14, by a server of forks since; elsewhere than on Linux neither."""
    if request.param not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {request.param}")
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(None, force=True)
