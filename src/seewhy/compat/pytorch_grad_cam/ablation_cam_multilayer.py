"""AblationCAM, which takes several layers anyway."""

from seewhy.compat.pytorch_grad_cam.ablation_cam import AblationCAM as AblationCAM
from seewhy.compat.pytorch_grad_cam.utils.find_layers import replace_layer_recursive as replace_layer_recursive
