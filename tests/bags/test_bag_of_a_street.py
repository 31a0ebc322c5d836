"""A bag of a drive gives the frames of the folder that it was made from: scans, images, calibration and poses."""

import drives
import numpy as np
import pytest
from same_frames import content_of

from uov_hf.data import decode_image, load_frames


@pytest.mark.parametrize(("kind", "poses_by"), [("mcap", "odometry"), ("db3", "tf"), ("bag", "tf")])
def test_a_bag_gives_the_frames_of_the_folder_it_was_made_from(kind, poses_by, drive, folder, tmp_path):
    path = drives.write_bag(drive, tmp_path, kind, poses_by)
    bag, expected = load_frames("rosbag", data_dir=path), load_frames("point_cloud_folder", data_dir=folder)
    assert bag.frame_ids == expected.frame_ids == ["drive/000000", "drive/000001", "drive/000002"]
    for here, there in zip(bag, expected, strict=True):
        order = [there["camera_names"].index(name) for name in here["camera_names"]]
        assert sorted(order) == [0, 1] and here["timestamp"] == there["timestamp"]
        assert here["image_ids"] == [there["image_ids"][place] for place in order]
        np.testing.assert_array_equal(here["points"], there["points"])
        np.testing.assert_allclose(here["lidar2global"], there["lidar2global"], rtol=0, atol=1e-9)
        for column in ("camera_timestamps", "lidar2cam", "intrinsics", "image_sizes"):
            np.testing.assert_allclose(here[column], there[column][order], rtol=0, atol=1e-9, err_msg=column)
        for image, place in zip(here["images"], order, strict=True):
            np.testing.assert_array_equal(decode_image(image), decode_image(there["images"][place]))
            if there["camera_names"][place] == "left":
                assert content_of(image) == content_of(there["images"][place])
        assert here["intensity_max"] == 255 and here["labels"] is None
    moved = bag[1]["points"][:, :3] - drive.scans[1].points[:, :3]
    assert np.abs(moved).max() > 0.5  # metres: the scan was corrected for the motion of the car
