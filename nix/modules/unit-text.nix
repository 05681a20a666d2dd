# A command line for `ExecStart=`: each word quoted, with nothing in it that systemd would expand. Pure.
words:
let
  quote = word: builtins.toJSON (builtins.replaceStrings [ "%" "$" ] [ "%%" "$$" ] (toString word));
in
builtins.concatStringsSep " " (map quote words)
