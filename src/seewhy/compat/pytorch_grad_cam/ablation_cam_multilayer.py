"""AblationCAM, which takes several layers anyway."""

from seewhy.compat.pytorch_grad_cam.ablation_cam import AblationCAM as AblationCAM
