# fish completion for llmctl. Load it with:  llmctl completion fish | source
# or keep it as ~/.config/fish/completions/llmctl.fish

function __llmctl_complete
    set -l words (commandline -opc)
    set -l typed (commandline -ct)
    set -l found ($words[1] __complete $words[2..-1] (string trim --left --chars '"\'' -- "$typed") 2>/dev/null)
    if set -q found[1]
        printf '%s\n' $found
    else
        __fish_complete_path "$typed"
    end
end

complete --command llmctl --no-files --arguments '(__llmctl_complete)'
