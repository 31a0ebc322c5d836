"""EoMT's masks without its classes."""

from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import EomtForUniversalSegmentation
from transformers.image_transforms import get_size_with_aspect_ratio

from uov_hf.teachers.checkpoints import Checkpoint
from uov_hf.teachers.queries import QueryTeacher


class EomtTeacher(QueryTeacher):
    """Any EoMT of the Hub (Kerssies et al., "Your ViT is Secretly an Image Segmentation Model", CVPR 2025).

    An image is fitted into the square of the model's training and padded with black, as for panoptic segmentation.
    `QueryConfig` has the settings.
    """

    name = "eomt"
    example = "tue-mps/coco_panoptic_eomt_large_640"
    model_class = EomtForUniversalSegmentation

    def load_processor(self, checkpoint: Checkpoint) -> None:
        self.transform = checkpoint.load_transform()
        self.side: int = self.model.config.image_size

    def pixels(self, image: Image.Image) -> Tensor:
        """`(3, side, side)`, the image in the upper-left corner."""
        height, width = self._fitted(image)
        square = Image.new("RGB", (self.side, self.side))
        square.paste(image.resize((width, height), self.transform.resample))
        return self.transform(square, (self.side, self.side))

    def unpad(self, logits: Tensor, image: Image.Image) -> Tensor:
        """At the size of the model's input, where the image ends at a whole pixel."""
        height, width = self._fitted(image)
        return interpolate(logits[:, None], size=(self.side, self.side), mode="bilinear")[:, 0, :height, :width]

    def _fitted(self, image: Image.Image) -> tuple[int, int]:
        """Height and width of the image in the square."""
        return get_size_with_aspect_ratio((image.height, image.width), self.side, self.side)
