"""A training job -> weights: timm's parts, torch's distribution, and what is DeiT's own."""
