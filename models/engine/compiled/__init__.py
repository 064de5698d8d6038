"""The source of the kernel in C++, and its build; `models/engine/kernel.py` loads the library."""
