# Takes out of an object what tidy.json lists, so that tests compare what was saved with what was restored:
#   kubectl get svc,deploy -o json | jq -L src/rules 'include "tidy"; .items | map(tidied)'
# What a restore was asked to keep (unless) isn't known here: these paths always go.
import "tidy" as $list;

def kind_name: .kind + if (.apiVersion // "") | contains("/") then "." + (.apiVersion | split("/")[0]) else "" end;

# The concrete paths that a path with * leads to.
def spots($path):
  if $path == [] then []
  elif $path[0] == "*" then
    (if type == "array" or type == "object" then keys_unsorted[] else empty end) as $key
    | [$key] + (.[$key] | spots($path[1:]))
  elif type == "object" and has($path[0]) then [$path[0]] + (.[$path[0]] | spots($path[1:]))
  else empty end;

def is_like($pattern):
  if $pattern | endswith("{random}") then
    startswith($pattern[:-8]) and (.[$pattern[:-8] | length:] | test("^[bcdfghjklmnpqrstvwxz2456789]{5}$"))
  else . == $pattern end;

# Whether a rule is about this object.
def concerns($rule):
  kind_name as $kind
  | ($rule.kinds | any(. == "*" or . == $kind))
  and ($rule.when as $when | $when == null or (getpath($when.path) as $is
    | if $when | has("is") then $is == $when.is else $is != $when.isNot end));

def tidied:
  . as $object
  | reduce ($list::list[0].rules[] | select(. as $rule | $object | concerns($rule))) as $rule (.;
      (($rule.element.like // "")
        | gsub("\\{name\\}"; $object.metadata.name // "")
        | gsub("\\{serviceAccount\\}"; ($object.spec | objects | .serviceAccountName) // "")) as $like
      | [spots($rule.path) as $spot | getpath($spot) as $value
          | select(any(($rule.keep // [])[]; . == $value) | not)
          | select($rule.element == null or ($value | .[$rule.element.field]? // "" | is_like($like)))
          | $spot] as $gone
      | delpaths($gone)
      | reduce ($gone[] | range(length - 1; 0; -1) as $n | .[:$n]) as $above (.;
          if ($above[-1] | type) == "string" and (getpath($above) | . == {} or . == []) then delpaths([$above]) else . end));
