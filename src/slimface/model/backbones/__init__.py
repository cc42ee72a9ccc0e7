"""Backbones: networks that turn a picture into three maps, of strides 8, 16 and 32."""

from slimface.model.backbones.backbone import Backbone as Backbone
from slimface.model.backbones.backbone import build_backbone as build_backbone
