"""Errors of the library in the words of the pages: what to do with the controls of a page, not with options.

An error of the library names options of the command line, as its reader needs them there. Each row replaces the part of
a message that does. A test reads all messages of the modules that the studio imports: each has a row here, or no page
can cause it.
"""

import re

_CHOOSE = "on the page Images"
_DRAW = "on the page Region"
_FEWER_STEPS = "start a new training with fewer steps of fine-tuning, or with 0 (More options)"
_START_AGAIN = "start a new training"

_ROWS: tuple[tuple[str, str], ...] = (
    # the images
    (r"pass --normal DIR if the images were moved", f"put it back, or choose the images again and {_START_AGAIN}"),
    (r"pass --normal (.+)$", rf"choose \1 {_CHOOSE}"),
    (r"^--normal (.*); check the path$", rf"the folder of normal images \1; choose another one {_CHOOSE}"),
    (r"^--normal ", "the folder of normal images "),
    (
        r"expected test/good and test/<defect type>, the layout of MVTec-AD; or name the folders: --normal DIR "
        r"--abnormal DIR",
        f"expected a folder good and a folder for each defect type; choose such a folder, or drop images, {_CHOOSE}",
    ),
    (r"remove one, or name each folder once", "remove one of them"),
    (
        r"pass the number of bits that hold the signal when training: msc-edge train --bit-depth \S+",
        "save it with 8 bits a channel",
    ),
    (r", or train with (another --bit-depth|--bit-depth \S+)", ""),
    # region and ignore mask
    (
        r"^--ignore-mask .+?: is (\S+x\S+) pixels, and --roi is not inside it; .*$",
        rf"the ignore mask is \1 pixels, and the region is not inside it; delete the mask and draw it again {_DRAW}",
    ),
    (
        r"and --ignore-mask .+ is (\S+x\S+); .*$",
        rf"and the ignore mask is \1; remove images of another size, or delete the mask and draw it again {_DRAW}",
    ),
    (r"^--ignore-mask .+?: (.+ that the network sees .+); .*$", rf"the ignore mask: \1; draw it again {_DRAW}"),
    (r"^--ignore-mask .+?: (.+); pass an image .*$", rf"the ignore mask: \1; draw it again {_DRAW}"),
    (r"--roi (.+ is not inside it); change the region", rf"the region \1; change the region {_DRAW}"),
    (r"^--roi ", "the region "),
    # the training
    (r"train again with a lower --learning-rate(, or with other weights|, or with --select synthetic)?", _FEWER_STEPS),
    (r"pass --steps N to fine-tune it anyway", "a new training with steps (More options) fine-tunes it anyway"),
    (r", or pass --holdout \S+", ""),
    (r"check the images, or pass --scores image", "check the images"),
    (r"or pass a file of it as the weights", "or choose another speed or detail"),
    (r"wait until it has finished, or choose another name", "wait until it has finished"),
    (
        r"(is a file|is not empty|cannot write there); choose another name",
        rf"\1; delete this training, and {_START_AGAIN}",
    ),
    # the export
    (
        r"export with a slightly different --warn-rate or --reject-rate",
        "state a slightly different target false-alarm rate under Export again; without a kit yet, start a new "
        "training with another number of steps",
    ),
    (r"copy the kit again", "export the kit again"),
    (
        r"cannot be opened: (.+); check the path$",
        r"cannot be opened: \1; check that the file is there and may be read",
    ),
    (r"with more images or a higher --holdout", "with more normal images"),
    (r"; if they show fewer, pass --group-by: otherwise", "; if they show fewer,"),
    (
        r"choose another name, or pass --overwrite to replace it|not a kit; --overwrite replaces only kits: choose "
        r"another name",
        "it is not a kit of this training; move this folder elsewhere, and try again",
    ),
    (r"resume it: msc-edge train --resume, with the same options", _START_AGAIN),
    (r"not a run of msc-edge train (\(.*\)); check the path", rf"not a finished training \1; {_START_AGAIN}"),
    (
        r"use --precision fp32, or export with the --target of this processor",
        "export again on this PC, without an int8 model",
    ),
    # the evaluation
    (
        r"^--out (.+): lies within (.+), which is an input; .*$",
        rf"\1 lies within \2, the folder of labelled images; choose another folder for them {_CHOOSE}",
    ),
    (
        r"^--out (.+): contains (.+), which is an input; .*$",
        rf"\2, the folder of labelled images, lies within \1; choose another folder for them {_CHOOSE}",
    ),
    (r"^--out (.+: contains .+, which is not part of an evaluation), .*$", r"\1; move it elsewhere"),
)
_COMPILED = tuple((re.compile(pattern), words) for pattern, words in _ROWS)


def in_words_of_page(message: str, page: str) -> str:
    """The same on one of the pages that messages send the reader to, where he is: without the name of the page."""
    return re.sub(rf",? on the page {page}\b", "", in_words_of_pages(message))


def in_words_of_pages(message: str) -> str:
    """The message of an error, with what to do on the pages in place of options of the command line."""
    for pattern, words in _COMPILED:
        message = pattern.sub(words, message)
    return message
