"""The worker: a long-lived process that serves PyTorch to clients (`python -m marlin.worker`)."""
