"""`torchtitan.train` for compiled modules, by hand and on any device:

    torchrun --nproc-per-node 2 -m pdforge.titan.train --module train --config config

The same command line as torchtitan's; on a machine without CUDA it prepares torchtitan for the CPU first.
"""

import pdforge.titan  # noqa: F401 - prepares torchtitan before its trainer is imported

if __name__ == "__main__":
    from torchtitan.train import main

    main()
