"""Compiler: an integer graph becomes a program and an off-chip memory image."""

from hw.compiler.build import compile_network
from hw.compiler.errors import CompileError
from hw.compiler.program import Program

__all__ = ["CompileError", "Program", "compile_network"]
