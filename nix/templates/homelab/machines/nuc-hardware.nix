# In place of this: what `nixos-generate-config --show-hardware-config` prints on nuc, and the lines `boot.loader.…` of the
# configuration.nix that it was installed with. Without a boot loader and a root file system nothing is built for it.
{ }
