"""One drive, which its tests share."""

import pytest


pytest.importorskip("rosbags")
import drives  # noqa: E402


@pytest.fixture(scope="session")
def drive():
    return drives.make_drive()


@pytest.fixture(scope="session")
def folder(drive, tmp_path_factory):
    """The drive as an own-car folder. Do not write into it."""
    return drives.write_folder(drive, tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="session")
def mcap(drive, tmp_path_factory):
    """The drive as a bag of ROS 2. Do not write into its folder."""
    return drives.write_bag(drive, tmp_path_factory.mktemp("mcap"), "mcap")
