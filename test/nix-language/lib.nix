# A small stand-in for nixpkgs' `lib`, as far as nix/ uses it: enough of `evalModules` to evaluate our modules without
# nixpkgs. test/integration/nix-modules.test.ts runs the same tests with the real one, where $NIXPKGS_LIB names it.
let
  inherit (builtins)
    all attrNames concatLists concatMap concatStringsSep elem elemAt filter foldl' genList head isAttrs isBool isFunction
    isList isPath isString length listToAttrs match stringLength substring tail toJSON;

  fix = function: let self = function self; in self;
  at = path: concatStringsSep "." path;

  # Values under mkIf, mkMerge and mkOverride at a path of a definition. A condition is looked at only where it decides.
  find = { isOn ? true, priority ? 100 }@state: path: value:
    let kind = if isAttrs value then value._type or null else null; in
    if kind == "merge" then concatMap (find state path) value.contents
    else if kind == "if" then find (state // { isOn = (state.isOn or true) && value.condition; }) path value.content
    else if kind == "override" then find (state // { inherit (value) priority; }) path value.content
    else if path == [ ] then [ { inherit isOn priority value; } ]
    else if isAttrs value && value ? ${head path} then find state (tail path) value.${head path}
    else [ ];
  strongest = definitions:
    let
      on = filter (definition: definition.isOn) definitions;
      best = foldl' (least: definition: if definition.priority < least then definition.priority else least) 9999 on;
    in
    map (definition: definition.value) (filter (definition: definition.priority == best) on);

  single = type: path: values:
    if length values == 1 || all (value: value == head values) values then head values
    else throw "The option `${at path}' (${type}) is defined more than once";
  simple = name: isGood: {
    inherit name isGood;
    merge = path: values:
      if all isGood values then single name path values
      else throw "A definition for option `${at path}' is not of type ${name}";
  };
  # The names that any definition gives a value, with that value's definitions.
  keysOf = values: let flat = value: find { } [ ] value; in
    attrNames (foldl' (keys: one: keys // one.value) { } (concatMap flat values));
  mergeAnything = path: values:
    if all isAttrs values && !(all (value: value ? type) values) then
      listToAttrs (map (name: { inherit name; value = mergeAnything (path ++ [ name ]) (strongest (concatMap (find { } [ name ]) values)); }) (keysOf values))
    else if all isList values then concatLists values
    else single "anything" path values;

  types = rec {
    str = simple "str" isString;
    bool = simple "bool" isBool;
    int = simple "int" builtins.isInt;
    port = simple "port" (value: builtins.isInt value && value >= 0 && value <= 65535);
    package = simple "package" (value: (isAttrs value && value.type or null == "derivation") || isString value);
    strMatching = pattern: simple "strMatching" (value: isString value && match pattern value != null);
    singleLineStr = simple "singleLineStr" (value: isString value && match "[^\n]*" value != null);
    path = simple "path" (value: isPath value || (isString value && match "/.*" value != null));
    oneOf = kinds: simple "oneOf" (value: builtins.any (kind: kind.isGood value) kinds);
    enum = values: simple "enum" (value: elem value values);
    anything = { name = "anything"; merge = mergeAnything; };
    nullOr = type: {
      name = "nullOr";
      merge = path: values: if all (value: value == null) values then null else type.merge path values;
    };
    listOf = type: {
      name = "listOf";
      merge = path: values:
        if all isList values then map (value: type.merge path [ value ]) (concatLists values)
        else throw "A definition for option `${at path}' is not of type list";
    };
    attrsOf = type: {
      name = "attrsOf";
      merge = path: values:
        if !(all isAttrs values) then throw "A definition for option `${at path}' is not of type attribute set"
        else listToAttrs (concatMap
          (name:
            let own = strongest (concatMap (find { } [ name ]) values); in
            if own == [ ] then [ ] else [ { inherit name; value = type.merge (path ++ [ name ]) own; } ])
          (keysOf values));
    };
    submodule = module: {
      name = "submodule";
      merge = path: values: (evalModules {
        modules = [ module ] ++ map (config: { inherit config; }) values;
        specialArgs.name = elemAt path (length path - 1);
      }).config;
    };
  };

  evalModules = { modules, specialArgs ? { } }: fix (result:
    let
      arguments = specialArgs // { inherit lib; inherit (result) config options; };
      open = index: module:
        if isPath module then open (toString module) (import module)
        else if isFunction module then open index (module arguments)
        else {
          key = module.key or index;
          imports = module.imports or [ ];
          options = module.options or { };
          config =
            if module ? config || module ? options then module.config or { }
            else removeAttrs module [ "imports" "key" "_file" ];
        };
      withImports = prefix: list: concatLists (genList
        (index: let opened = open "${prefix}${toString index}" (elemAt list index); in withImports "${opened.key}/" opened.imports ++ [ opened ])
        (length list));
      # Each key once.
      found = foldl' (known: module: if elem module.key (map (one: one.key) known) then known else known ++ [ module ]) [ ] (withImports ":" modules);
      isOption = value: value._type or null == "option";
      declare = left: right: left // builtins.mapAttrs (name: value: if isAttrs value && !(isOption value) && left ? ${name} then declare left.${name} value else value) right;
      options = foldl' declare { } (map (module: module.options) found);
      evaluate = path: tree: builtins.mapAttrs
        (name: value:
          let
            here = path ++ [ name ];
            values = strongest (concatMap (module: find { } here module.config) found);
          in
          if !(isOption value) then evaluate here value
          else if values != [ ] then value.type.merge here values
          else value.default or (throw "The option `${at here}' is used but not defined"))
        tree;
      undeclared = path: tree: value:
        concatMap
          (one: concatMap
            (name:
              if !(tree ? ${name}) then [ (at (path ++ [ name ])) ]
              else if isOption tree.${name} then [ ]
              else undeclared (path ++ [ name ]) tree.${name} one.${name})
            (if isAttrs one then attrNames one else [ ]))
          (map (definition: definition.value) (find { } [ ] value));
      unknown = concatMap (module: undeclared [ ] options module.config) found;
    in
    {
      inherit options;
      config = if unknown == [ ] then evaluate [ ] options else throw "The option `${head unknown}' does not exist";
    });

  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
  hasSuffix = suffix: text: let start = stringLength text - stringLength suffix; in start >= 0 && substring start (-1) text == suffix;

  lib = rec {
    inherit evalModules types concatMap concatStringsSep hasPrefix;
    inherit (builtins) any;
    mkOption = settings: settings // { _type = "option"; };
    mkEnableOption = what: mkOption { type = types.bool; default = false; description = "Whether to enable ${what}."; };
    mkIf = condition: content: { _type = "if"; inherit condition content; };
    mkMerge = contents: { _type = "merge"; inherit contents; };
    mkOverride = priority: content: { _type = "override"; inherit priority content; };
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
    literalExpression = text: { _type = "literalExpression"; inherit text; };
    optional = isWanted: value: if isWanted then [ value ] else [ ];
    optionalString = isWanted: text: if isWanted then text else "";
    optionals = isWanted: values: if isWanted then values else [ ];
    optionalAttrs = isWanted: set: if isWanted then set else { };
    unique = foldl' (known: value: if elem value known then known else known ++ [ value ]) [ ];
    removePrefix = prefix: text: if hasPrefix prefix text then substring (stringLength prefix) (-1) text else text;
    removeSuffix = suffix: text: if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
    last = list: elemAt list (length list - 1);
    splitString = separator: text: filter isString (builtins.split (builtins.replaceStrings [ "." ] [ "[.]" ] separator) text);
    toInt = builtins.fromJSON;
    genAttrs = names: make: listToAttrs (map (name: { inherit name; value = make name; }) names);
    fetchers.proxyImpureEnvVars = [ "http_proxy" "https_proxy" "ftp_proxy" "all_proxy" "no_proxy" ];
    licenses.asl20 = { spdxId = "Apache-2.0"; };
    escapeShellArgs = words: concatStringsSep " " (map escapeShellArg words);
    escapeShellArg = word:
      if match "[[:alnum:],._+:@%/-]+" (toString word) != null then toString word
      else "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] (toString word)}'";
    makeBinPath = packages: concatStringsSep ":" (map (package: "${package}/bin") packages);
    getExe = package: "${package}/bin/${package.meta.mainProgram or package.pname or package.name}";
  };
in
lib
