"""Scores of images: Fréchet distances, PSNR, comparisons image by image, and CLIP."""
