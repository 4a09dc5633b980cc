"""Every configuration key of the project, with its meaning and its default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, get_cfg
from yaml import YAMLError

from detr_d2.config_checks import check_config
from detr_d2.config_files import find_config_file
from detr_d2.renamed_keys import RENAMED_KEYS, rename_keys


def add_detr_config(cfg: CfgNode) -> None:
    """Adds the keys of DETR to a Detectron2 config, with the values of the reference (R50)."""
    detr = cfg.MODEL.DETR = CfgNode()

    # Number of classes, things and stuff together, without "no object". COCO panoptic has 80 + 53.
    # 0 means as many as the datasets have, or MODEL.WEIGHTS if the datasets are missing.
    detr.NUM_CLASSES = 133
    # Object queries. Each predicts one segment or "no object": an image can't have more segments.
    detr.NUM_QUERIES = 100

    # --- Transformer (paper, section 3.2) ---
    # Name in DETR_TRANSFORMER_REGISTRY.
    detr.TRANSFORMER_NAME = "Transformer"
    # Width of queries, memory and projected features. It must be divisible by NUM_HEADS, by 4 for
    # sines or by 2 for learned positions, and by 16 for the mask head "AttentionMaskHead".
    detr.HIDDEN_DIM = 256
    # Attention heads; also the number of attention maps that the mask head gets per query.
    detr.NUM_HEADS = 8
    # Layers of the encoder, over the image's grid. 0 leaves the encoder out.
    detr.ENC_LAYERS = 6
    # Layers of the decoder, over the queries.
    detr.DEC_LAYERS = 6
    # Width of the hidden layer in each feed-forward network.
    detr.DIM_FEEDFORWARD = 2048
    # Probability of dropout in attention, in feed-forward networks and after each block.
    detr.DROPOUT = 0.1
    # Whether layer norm comes before each block, which trains faster from scratch, and not after it
    # as in the reference.
    detr.PRE_NORM = False
    # "sine" or "learned".
    detr.POSITION_EMBEDDING = "sine"
    # Longest wavelength of the sines, as a multiple of the image's side. A low one, such as 20 in
    # DAB-DETR, separates the cells of a small grid better; the reference has 10000.
    detr.POSITION_TEMPERATURE = 10000.0
    # Names of the backbone's outputs, finest first, at strides 4, 8, 16 and 32 (16 when res5 is
    # dilated). The last one feeds the transformer, the others the mask head's laterals.
    detr.IN_FEATURES = ["res2", "res3", "res4", "res5"]

    # --- Loading ---
    # Whether training may start from MODEL.WEIGHTS with other classes, queries or settings. Classes
    # of known names and the first queries keep their rows; the rest starts with initial values.
    detr.RESIZE_ON_LOAD = False

    # --- Two-step training ---
    # Whether the model predicts masks. Without masks, it is the bare detector.
    detr.MASK_ON = True
    # How many gigabytes of main memory a training may fill with the features of a frozen backbone,
    # so that each view of an image goes through it once. 0: none. See docs/backbones.md.
    detr.FEATURE_CACHE_GB = 0.0
    # Whether everything but the mask head is fixed: no gradients, no dropout, no batch statistics.
    detr.FREEZE_DETECTOR = False
    # Path or URL of a trained detector, from which the stage "masks" starts. If it is empty, the
    # stage starts from the result of the stage "boxes" of the same run.
    detr.FROZEN_WEIGHTS = ""

    # --- Mask head (paper, section 4.2 and figure 8) ---
    detr.MASK_HEAD = CfgNode()
    # Name in DETR_MASK_HEAD_REGISTRY: "AttentionMaskHead", the reference's, which released weights
    # need, or "PixelEmbeddingMaskHead", which learns in a fraction of the time.
    detr.MASK_HEAD.NAME = "AttentionMaskHead"
    # AttentionMaskHead: the softmax of a query's attention maps. "joint": it goes over all heads
    # and pixels, as released weights need. "per_head": it goes over the pixels of each head, and
    # the mask head learns faster.
    detr.MASK_HEAD.ATTENTION_SOFTMAX = "joint"
    # AttentionMaskHead: how many masks are made at a time, which bounds memory. 0: all.
    detr.MASK_HEAD.CHUNK_SIZE = 16
    # PixelEmbeddingMaskHead: channels of the embeddings of pixels and queries.
    detr.MASK_HEAD.WIDTH = 64
    # PixelEmbeddingMaskHead: 3×3 convolutions at each of the strides 32, 16, 8 and 4.
    detr.MASK_HEAD.DEPTH = 1
    # Whether training recomputes the mask head's activations in the backward pass, one chunk at a
    # time, instead of keeping them. It needs less memory and about a third more time.
    detr.MASK_HEAD.CHECKPOINTING = False

    # --- Matching: the cost of giving a query to a target (paper, section 3.1) ---
    detr.MATCHER = CfgNode()
    # Weight of minus the probability of the target's class.
    detr.MATCHER.COST_CLASS = 1.0
    # Weight of the L1 distance of boxes (centre and size, relative to the image).
    detr.MATCHER.COST_L1 = 5.0
    # Weight of minus the generalized IoU of boxes.
    detr.MATCHER.COST_GIOU = 2.0

    # --- Losses ---
    # Whether there are losses after every decoder layer, and not only after the last.
    detr.AUX_LOSS = True
    detr.LOSS = CfgNode()
    # Weight of the cross-entropy of classes.
    detr.LOSS.CLASS_WEIGHT = 1.0
    # Weight of the L1 distance of boxes.
    detr.LOSS.L1_WEIGHT = 5.0
    # Weight of 1 - generalized IoU of boxes.
    detr.LOSS.GIOU_WEIGHT = 2.0
    # Weight of the focal loss of masks.
    detr.LOSS.MASK_WEIGHT = 1.0
    # Weight of the dice loss of masks.
    detr.LOSS.DICE_WEIGHT = 1.0
    # Weight of "no object" in the cross-entropy: most queries have no target.
    detr.LOSS.NO_OBJECT_WEIGHT = 0.1
    # Weight of the pixels inside a mask in the focal loss; those outside have 1 minus this weight.
    detr.LOSS.FOCAL_ALPHA = 0.25
    # Exponent of the focal loss: a higher one lowers the weight of pixels that are already right.
    detr.LOSS.FOCAL_GAMMA = 2.0
    # Number of points at which the losses compare each mask; most are where the mask is uncertain.
    # 0: they compare every pixel, as the reference does.
    detr.LOSS.NUM_POINTS = 0

    # --- Inference ---
    # Whether the images of a batch are predicted one by one, so that padding cannot change a result
    # by rounding or at the borders of convolutions. Slower on a GPU; no cost for single images.
    detr.BATCH_INVARIANT = False
    detr.TEST = CfgNode()
    # Queries compete for pixels only with a class probability above this.
    detr.TEST.SCORE_THRESH = 0.85
    # What happens to several queries of one stuff class: "merged" joins them to one segment;
    # "reference" keeps only the first, like the released code. Its published figures need this.
    detr.TEST.STUFF_MERGING = "reference"
    # Segments of at most this many pixels are dropped, and their pixels go to the others.
    detr.TEST.MIN_AREA = 4
    # Whether the output has "panoptic_seg".
    detr.TEST.PANOPTIC_ON = True
    # Whether the output has "instances": the queries whose best class is a thing.
    detr.TEST.INSTANCES_ON = True
    # Instances need a class probability above this. -1.0: they are the things that compete for
    # pixels; the panoptic picture needs their masks anyway. 0.0: they are all queries of things,
    # whose masks can take more time than the rest of the prediction.
    detr.TEST.INSTANCE_SCORE_THRESH = -1.0
    # Whether instances have masks, or boxes alone.
    detr.TEST.INSTANCE_MASKS_ON = True
    # Whether the output has "raw": all queries of the image, from which masks can be merged again.
    detr.TEST.RAW_ON = False
    # Number of images of each dataset that an evaluation draws: the first ones, each with ground
    # truth and prediction side by side, as small as the pictures of reports.
    detr.TEST.NUM_PICTURES = 4
    # The average precisions that an evaluation computes, if INSTANCES_ON: "bbox", "segm", or none.
    # For these, the evaluation lets the model predict all instances. Boxes take little time; up to
    # all queries need masks for "segm".
    detr.TEST.AP = ["bbox", "segm"]
    # The average precisions of evaluations during a training, see TEST.EVAL_PERIOD.
    detr.TEST.AP_WHILE_TRAINING = ["bbox"]
    # Whether evaluation writes its predictions as COCO panoptic JSON and PNG.
    detr.TEST.SAVE_PREDICTIONS = False
    # "float32", or "bfloat16" for most of the computation of a prediction (autocast): faster where
    # the hardware multiplies it faster, with results that differ a little.
    detr.TEST.PRECISION = "float32"

    # --- Training schedule. Detectron2's own SOLVER keys serve the stages "boxes" and "joint" ---
    # The stages that a run goes through, in order: "boxes", "masks", "joint".
    cfg.SOLVER.STAGES = ["boxes", "masks"]
    # "ADAMW" or "SGD".
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    # Number of parts into which each process divides its share of a batch. It computes one part
    # after the other, needs that many times less memory, and gets the same gradients. IMS_PER_BATCH
    # is still the whole batch.
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # The learning rate of the backbone is BASE_LR times this.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    # Layer-wise decay for backbones of timm: the learning rate of each layer is this times that of
    # the layer after it. 1: no decay; vision transformers are trained with 0.65 to 0.9.
    cfg.SOLVER.BACKBONE_LAYER_DECAY = 1.0
    # The keys below replace their namesakes in SOLVER during the stage "masks".
    cfg.SOLVER.MASK_STAGE = CfgNode()
    # Images in a batch of all processes.
    cfg.SOLVER.MASK_STAGE.IMS_PER_BATCH = 64
    # Learning rate of the mask head.
    cfg.SOLVER.MASK_STAGE.BASE_LR = 1e-4
    # Iterations: 25 epochs of COCO's 118,287 images.
    cfg.SOLVER.MASK_STAGE.MAX_ITER = 46200
    # Iterations at which the learning rate is divided by 10: after 15 epochs.
    cfg.SOLVER.MASK_STAGE.STEPS = [27720]

    # Datasets of one's own in COCO's panoptic format, for DATASETS.TRAIN and DATASETS.TEST, each
    # [name, folder of images, folder of panoptic PNGs, panoptic JSON]. Relative paths start, as
    # those of Detectron2's built-in datasets, from $DETECTRON2_DATASETS, or else from ./datasets.
    cfg.DATASETS.PANOPTIC = []
    # Whether panoptic segments of things with iscrowd 1 are single objects, in training and in
    # evaluation. Some tools mark everything that was drawn with a brush as a crowd.
    cfg.DATASETS.CROWDS_AS_THINGS = False

    # --- Image files, wherever they are read: to train, to evaluate, to predict, to check ---
    # The largest value of pixels in PNGs, TIFFs and arrays of 16 bits; other formats store it. This
    # value and larger ones become 255. It is 1023 for 10 bits, 4095 for 12, and 16383 for 14.
    cfg.INPUT.DEEP_RANGE = 65535
    # Whether images stay as they are stored and are not turned upright by their EXIF tag. Some
    # annotations were drawn on images as they are stored.
    cfg.INPUT.IGNORE_EXIF = False

    # --- Augmentation, beside Detectron2's own INPUT keys ---
    # Probability that a training image is resized, cropped and resized again, not only resized.
    cfg.INPUT.CROP_PROB = 0.5
    # Length of the shortest side before the crop, in pixels: one of these, drawn at random.
    cfg.INPUT.CROP_RESIZE = [400, 500, 600]
    # The least and the greatest length of the crop's sides, in pixels.
    cfg.INPUT.CROP_RANGE = [384, 600]

    # --- Loading, beside Detectron2's own DATALOADER keys ---
    # What training does if an image can't be read or contradicts its annotation: "raise" stops it,
    # "skip" logs the file and draws another image instead. Evaluation always stops.
    cfg.DATALOADER.ON_ERROR = "raise"
    # Largest share of the training images that may be skipped; beyond it training stops. Each
    # process of a distributed run counts the images that it and its workers meet.
    cfg.DATALOADER.MAX_SKIPPED = 0.05

    _add_timm_config(cfg)
    for old_name, new_name in RENAMED_KEYS.items():
        cfg.register_renamed_key(old_name, new_name)


def _add_timm_config(cfg: CfgNode) -> None:
    """Adds the keys of ``MODEL.BACKBONE.NAME: "build_timm_backbone"``."""
    timm = cfg.MODEL.TIMM = CfgNode()
    # Name of a model in timm, with or without the tag of its weights: any with stages of strides 4,
    # 8, 16 and 32, and plain vision transformers. Its weights are MODEL.WEIGHTS "timm://NAME".
    # Where MODEL.PIXEL_MEAN and PIXEL_STD are [], they are those that it was pretrained with.
    timm.NAME = "resnet50"
    # Stride of res5: 32, or 16 for models that timm can dilate.
    timm.OUTPUT_STRIDE = 32
    # "FrozenBN" keeps the statistics and weights of batch norm as they are loaded, "BN" trains
    # them, "SyncBN" with the statistics of all processes. What MODEL.BACKBONE.FREEZE_AT freezes
    # stays as it is in any case.
    timm.NORM = "FrozenBN"
    # Probability with which training skips the last block (stochastic depth); less in earlier ones.
    timm.DROP_PATH = 0.0
    # Channels of the simple feature pyramid that plain vision transformers get.
    timm.PYRAMID_WIDTH = 256


def load_config(path: str | None, overrides: Sequence[str] = ()) -> CfgNode:
    """Reads a config file, applies ``KEY VALUE`` overrides, and checks the result.

    Keys may have the names of older versions, see ``RENAMED_KEYS``. Python objects in a file, which
    Detectron2 would build, are refused: building them can run any program.

    Args:
        path: a YAML file, or the name of one that comes with the package, see ``config_file``; None
            for the values of ``add_detr_config``.
        overrides: keys and values in turn, as on Detectron2's command lines.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key doesn't exist, or has a value that cannot work; the message names it. Or
            the file is no YAML of keys and plain values.
    """
    path = find_config_file(path) if path is not None else None
    cfg = get_cfg()
    add_detr_config(cfg)
    try:
        if path is not None:
            loaded = _read_keys(path)
            if rename_keys(loaded):
                cfg.merge_from_other_cfg(CfgNode(loaded))
            else:  # Detectron2's own merging also reads files of its version 1.
                cfg.merge_from_file(path, allow_unsafe=False)
        cfg.merge_from_list(
            [part if i % 2 else RENAMED_KEYS.get(part, part) for i, part in enumerate(overrides)]
        )
    except (KeyError, AssertionError) as error:  # what yacs raises for unknown keys and odd lists
        given = ", ".join(filter(None, (path, " ".join(map(str, overrides)))))
        raise ValueError(f"{given}: {error.args[0]}") from error
    check_config(cfg)
    return cfg


def _read_keys(path: str) -> dict[str, Any]:
    """The keys of a YAML file and of those that it is based on."""
    try:
        keys = CfgNode.load_yaml_with_base(path, allow_unsafe=False)
    except YAMLError as error:
        raise ValueError(
            f"{path}: cannot be read as a config, YAML with plain values alone: {error}"
        ) from error
    except TypeError:  # fvcore looks for a key, whatever the file has
        keys = None
    if not isinstance(keys, dict):
        raise ValueError(f"{path}: has no keys, as a config has.")
    return keys


def set_key(cfg: CfgNode, key: str, value: object) -> None:
    """Sets a key of a config, also of a frozen one."""
    frozen = cfg.is_frozen()
    cfg.defrost()
    cfg.merge_from_list([key, value])
    if frozen:
        cfg.freeze()
