#compdef llmctl
# zsh completion for llmctl. Load it with:  source <(llmctl completion zsh)
# or keep it as a file named _llmctl in a folder of $fpath.

_llmctl() {
    local -a words_given lines values shown
    local line
    # (Q) takes the quotes off; the quotes around keep an empty last word. One that is still open is no quoting yet.
    words_given=("${(@Q)words[2,CURRENT]}")
    words_given[-1]=${words_given[-1]#[\'\"]}
    lines=("${(@f)$("${(Q)words[1]}" __complete "${words_given[@]}" 2>/dev/null)}")
    for line in $lines; do
        values+=("${line%%$'\t'*}")
        shown+=("${line/$'\t'/  -- }")
    done
    if (( $#values )); then
        compadd -l -d shown -- $values
    else
        _files
    fi
}

if [[ ${funcstack[1]} == _llmctl ]]; then
    _llmctl "$@"
else
    compdef _llmctl llmctl
fi
