# Values for systemd's unit files, with nothing in them that systemd would expand. Pure.
let
  inherit (builtins) attrNames concatStringsSep mapAttrs replaceStrings toJSON;
  # systemd drops a variable in which it cannot resolve a specifier, such as %40 in the address of a proxy.
  plain = replaceStrings [ "%" ] [ "%%" ];
in
{
  # A command line for `ExecStart=`: each word quoted.
  command = words: concatStringsSep " " (map (word: toJSON (replaceStrings [ "%" "$" ] [ "%%" "$$" ] (toString word))) words);

  # Variables for NixOS' `environment`, which quotes them.
  environment = mapAttrs (name: plain);

  # Variables for lines `Environment=`.
  assignments = variables: map (name: toJSON (plain "${name}=${variables.${name}}")) (attrNames variables);
}
