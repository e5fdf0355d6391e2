"""The tiny world of the tests: drawings of coloured shapes with captions, as archives like those of
Flickr8k or as a folder of images with a table, and an image encoder that distinguishes them."""

import csv
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 220)}
SHAPES = ("circle", "square")
CAPTION_FORMS = (
    "A {colour} {shape} .",
    "A {colour} {shape} on white .",
    "There is a {colour} {shape} .",
    "One {colour} {shape} is on a white page .",
    "The {shape} is {colour} .",
)


def drawings(count: int) -> dict[str, tuple[Image.Image, list[str]]]:
    """Image name -> drawing and its five captions. Any six drawings show all colours and shapes."""
    world = {}
    for number in range(count):
        colour = list(COLOURS)[number % 3]
        shape = SHAPES[number // 3 % 2]
        image = Image.new("RGB", (80 + number, 64), "white")
        box = (10 + number % 7, 10, 50 + number % 7, 50)
        draw = ImageDraw.Draw(image)
        {"circle": draw.ellipse, "square": draw.rectangle}[shape](box, fill=COLOURS[colour])
        captions = [form.format(colour=colour, shape=shape) for form in CAPTION_FORMS]
        world[f"{number:03}_drawing.jpg"] = image, captions
    return world


def write_archives(folder: Path, train: int = 24, development: int = 6, test: int = 6) -> None:
    """Writes `Flickr8k_Dataset.zip` and `Flickr8k_text.zip` with this many drawings in each
    split."""
    world = drawings(train + development + test)
    names = list(world)
    with zipfile.ZipFile(folder / "Flickr8k_Dataset.zip", "w") as archive:
        for name, (image, _) in world.items():
            content = BytesIO()
            image.save(content, "JPEG", quality=95)
            archive.writestr(f"Flicker8k_Dataset/{name}", content.getvalue())
    with zipfile.ZipFile(folder / "Flickr8k_text.zip", "w") as archive:
        lines = [
            f"{name}#{number}\t{caption}\n"
            for name, (_, captions) in world.items()
            for number, caption in enumerate(captions)
        ]
        archive.writestr("Flickr8k.token.txt", "".join(lines))
        for split, split_names in (
            ("train", names[:train]),
            ("dev", names[train : train + development]),
            ("test", names[train + development :]),
        ):
            archive.writestr(f"Flickr_8k.{split}Images.txt", "\n".join(split_names) + "\n")


def write_folder(folder: Path, count: int = 20) -> dict[str, str]:
    """Writes `my_photos`, with half of the images in a folder below it, and `my_captions.csv`, with
    one or two captions of each image. Returns image name -> first caption."""
    first_captions = {}
    with (folder / "my_captions.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption"])
        for number, (name, (image, captions)) in enumerate(drawings(count).items()):
            name = name if number < count / 2 else f"more/{name}"
            path = folder / "my_photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, quality=95)
            first_captions[name] = captions[1]
            table.writerows([name, caption] for caption in captions[1 : 2 + number % 2])
    return first_captions


def make_tiny_data():
    """The captions of the tiny world, with random features of 7 numbers a cell."""
    from captioning.data.vocabulary import clean_captions
    from captioning.training.training_data import TrainingData

    captions = {name: image_captions for name, (_, image_captions) in drawings(36).items()}
    names = list(captions)
    train = {name: captions[name] for name in names[:24]}
    development = {name: captions[name] for name in names[24:30]}
    random = np.random.default_rng(0)
    return TrainingData(
        train=clean_captions(train),
        development=clean_captions(development),
        references=development,
        features={name: random.random((3, 7), dtype="float32") for name in names},
    )


def build_tiny_encoder():
    """Builds a Keras model that averages images (batch, 32, 48, 3) uint8 to 4 x 6 pixels.

    It returns the pixels as feature maps (batch, 4, 18) float32, a cell for each row. Circles and
    squares differ in the pixels of their corners.
    """
    import keras  # only here: most tests of the tiny world need no Keras

    images = keras.Input((32, 48, 3), dtype="uint8", name="images")
    scaled = keras.layers.Rescaling(-4 / 255, offset=4)(images)  # white is 0
    pixels = keras.layers.AveragePooling2D(8)(scaled)
    return keras.Model(images, keras.layers.Reshape((4, 18))(pixels), name="encoder")


def inner_layers(model):
    """The layers of the models that a caption model consists of."""
    import keras

    parts = [part for part in model.layers if isinstance(part, keras.Model)]
    return [layer for part in parts for layer in part.layers]
