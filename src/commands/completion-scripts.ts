/** The shells' side of completion: each hands the line up to the cursor to `nixdeploy complete`, and shows its answer. */

/** Readline replaces only what stands behind the last `=` or `:` of a word, so that much of each candidate is cut. */
const BASH = `# bash completion for nixdeploy
_nixdeploy() {
  local line=\${COMP_LINE:0:COMP_POINT}
  local typed=\${line##*[[:space:]]} cur=\${COMP_WORDS[COMP_CWORD]}
  local kept=\${typed%"\${typed##*[=:]}"}
  local candidate description file
  [[ $cur == [=:] ]] && cur=
  COMPREPLY=()
  while IFS=$'\\t' read -r candidate description; do
    case $candidate in
      :files)
        compopt -o filenames 2>/dev/null
        while IFS= read -r file; do COMPREPLY+=("$file"); done < <(compgen -f -- "$cur") ;;
      :directories)
        compopt -o filenames 2>/dev/null
        while IFS= read -r file; do COMPREPLY+=("$file"); done < <(compgen -d -- "$cur") ;;
      ?*)
        [[ $candidate == *= ]] && compopt -o nospace 2>/dev/null
        COMPREPLY+=("\${candidate#"$kept"}") ;;
    esac
  done < <("\${COMP_WORDS[0]}" complete -- "$line" 2>/dev/null)
}
complete -F _nixdeploy nixdeploy
`;

const ZSH = `#compdef nixdeploy
_nixdeploy() {
  local line="\${(j: :)\${(@q)words[1,CURRENT-1]}} \${PREFIX}"
  local -a values open
  local entry value text
  for entry in "\${(@f)$(\${words[1]} complete -- "$line" 2>/dev/null)}"; do
    value=\${entry%%$'\\t'*}
    text=\${entry#*$'\\t'}
    case $value in
      :files) _files ;;
      :directories) _files -/ ;;
      *=) open+=("\${value//:/\\\\:}:$text") ;;
      ?*) values+=("\${value//:/\\\\:}:$text") ;;
    esac
  done
  (( $#values )) && _describe -t values value values
  (( $#open )) && _describe -t values value open -S ''
  return 0
}
if [ "$funcstack[1]" = _nixdeploy ]; then _nixdeploy "$@"; else compdef _nixdeploy nixdeploy; fi
`;

const FISH = `# fish completion for nixdeploy
function __nixdeploy_complete
  set -l program (commandline -opc)[1]
  for entry in ($program complete -- (commandline -cp | string collect) 2>/dev/null)
    switch $entry
      case ':files'
        __fish_complete_path (commandline -ct)
      case ':directories'
        __fish_complete_directories (commandline -ct)
      case '*'
        echo $entry
    end
  end
end
complete -c nixdeploy -f -a '(__nixdeploy_complete)'
`;

export const COMPLETION_SCRIPTS = { bash: BASH, zsh: ZSH, fish: FISH } as const;
