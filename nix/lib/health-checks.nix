# What a health check must look like, as src/health-check.ts has it: here it is said at evaluation, there it is enforced.
# Pure, and without nixpkgs. A fault is a sentence without a full stop.
let
  inherit (builtins)
    all any attrNames concatStringsSep elem elemAt filter genList isAttrs isBool isFloat isInt isList isString length
    match split stringLength toJSON typeOf unsafeDiscardStringContext;

  # A value's type, for messages.
  describe = value: {
    int = "a number";
    float = "a number";
    string = "a text";
    bool = "true or false";
    list = "a list";
    set = "a set";
    lambda = "a function";
    path = "a path";
    null = "null";
  }.${typeOf value};

  listMax = 50;
  hasForm = pattern: value: isString value && match pattern (unsafeDiscardStringContext value) != null;
  isNumber = value: isInt value || isFloat value;
  isBetween = low: high: value: isNumber value && value >= low && value <= high;
  isIntBetween = low: high: value: isInt value && value >= low && value <= high;
  isShortList = max: isItem: value: isList value && value != [ ] && length value <= max && all isItem value;

  isUnit = hasForm "[A-Za-z0-9:_.\\@-]{1,250}[.][a-z]{3,9}";
  isHost = value: isString value && stringLength value <= 253
    && (hasForm "[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?" value || hasForm "[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*" value);
  # A login would stand between "//" and "@".
  isUrl = value: hasForm "https?://[^/?#@[:space:]]+([/?#][^[:space:]]*)?" value && stringLength value <= 2000;
  # Absolute, and without parts that could lead elsewhere.
  isProgram = value: hasForm "(/[^/]+)+" value
    && all (part: !(isString part) || !(elem part [ "." ".." ])) (split "/" (unsafeDiscardStringContext value));
  isInStore = hasForm "/nix/store/[0-9a-df-np-sv-z]{32}-[A-Za-z0-9+._?=-]{1,211}(/.*)?";
  isWords = value: isList value && value != [ ] && length value <= 100 && all isString value
    && all (word: stringLength word <= 4096) value && stringLength (concatStringsSep "" value) <= 16384;

  common = {
    name = {
      isGood = hasForm "[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}";
      expected = "1 to 64 of A-Z a-z 0-9 . _ - and space";
      isRequired = true;
    };
    kind = { isGood = value: true; expected = "a kind"; isRequired = true; };
    periodSeconds = { isGood = isBetween 0.1 3600; expected = "0.1 to 3600 seconds"; };
    timeoutSeconds = { isGood = isBetween 0.1 3600; expected = "0.1 to 3600 seconds"; };
    attempts = { isGood = isIntBetween 1 10000; expected = "a whole number from 1 to 10000"; };
  };
  kinds = mayRunAnything: {
    units.units = {
      isGood = isShortList 100 isUnit;
      expected = "a list of 1 to 100 units, such as [ \"nginx.service\" ]";
      isRequired = true;
    };
    tcp = {
      host = { isGood = isHost; expected = "a host or an address"; };
      port = { isGood = isIntBetween 1 65535; expected = "a port, 1 to 65535"; isRequired = true; };
    };
    http = {
      url = { isGood = isUrl; expected = "an http: or https: URL without a login in it"; isRequired = true; };
      status = { isGood = isShortList 50 (isIntBetween 100 599); expected = "a list of statuses, 100 to 599"; };
      followRedirects = { isGood = isBool; expected = "true or false"; };
    };
    command.command = {
      isGood = value: isWords value && isProgram (elemAt value 0) && (mayRunAnything || isInStore (elemAt value 0));
      expected =
        if mayRunAnything then "a list of words, the absolute path of a program first"
        else "a list of words, a file of a store path first (/nix/store/HASH-NAME/…)";
      isRequired = true;
    };
  };

  faultsOfCheck = { mayRunAnything, at }: check:
    let
      kindsHere = kinds mayRunAnything;
      keys = common // kindsHere.${check.kind};
      faultOf = key:
        if check ? ${key} then
          (if keys.${key}.isGood check.${key} then [ ] else [ "${here} → ${key}: expected ${keys.${key}.expected}" ])
        else if keys.${key}.isRequired or false then [ "${here} → ${key}: it is missing" ]
        else [ ];
      here = if check ? name && isString check.name then "${at} (${toJSON check.name})" else at;
    in
    if !(isAttrs check) then [ "${at}: it is ${describe check} instead of a set" ]
    else if !(check ? kind) then [ "${here} → kind: it is missing" ]
    else if !(isString check.kind && kindsHere ? ${check.kind}) then [ "${here} → kind: expected units, tcp, http or command" ]
    else
      builtins.concatMap faultOf (attrNames keys)
      ++ map (key: "${here} → ${key} is not known here") (filter (key: !(keys ? ${key})) (attrNames check));
in
rec {
  inherit describe;

  # Of a list; `at` is what messages call it.
  faultsOf = { at, mayRunAnything ? false }: checks:
    if !(isList checks) then [ "${at}: it is ${describe checks} instead of a list" ]
    else
      builtins.concatLists (genList
        (index: faultsOfCheck { inherit mayRunAnything; at = "${at} → ${toString (index + 1)}"; } (elemAt checks index))
        (length checks))
      ++ map (why: "${at}: ${why}") (clashesOf checks);

  # Why these cannot be checks of one deployment together.
  clashesOf = checks:
    let
      names = builtins.concatMap (check: if isAttrs check && check ? name then [ check.name ] else [ ]) checks;
      isTwice = index: any (other: other < index && elemAt names other == elemAt names index) (genList (n: n) (length names));
    in
    (if length checks > listMax then [ "${toString (length checks)} health checks are more than ${toString listMax}" ] else [ ])
    ++ map (index: "two health checks are called ${toJSON (elemAt names index)}") (filter isTwice (genList (n: n) (length names)));
}
