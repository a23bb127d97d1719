"""Triton kernels for CUDA devices, one family a file; `qtune.ops.element_wise` chooses them.

Each file can be imported anywhere; its functions can be called where triton is installed, on CUDA
tensors, or on any under TRITON_INTERPRET=1. They make tensors and know nothing of autograd.
"""
