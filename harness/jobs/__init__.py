"""`Job` -> measurements.  The only home of torch, torchvision and timm; started by `launch`, imported by nobody."""
