"""`msc-edge bench`: what a kit costs on this machine, stage by stage, compared with bare onnxruntime."""
