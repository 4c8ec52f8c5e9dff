"""What runs on the device: the network, its losses, model files and the predictor."""
