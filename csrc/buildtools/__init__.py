"""Builds the native libraries for setup.py: finds torch, the compilers and CUDA, then compiles."""
