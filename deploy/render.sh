#!/usr/bin/env bash
# Writes what the chart and the kustomize base have from elsewhere: the chart's copies of deploy/crd, deploy/rbac and deploy/admission, which Helm
# does not read outside of a chart, and the base, the overlay and what newer API servers have beside them, which are
# the chart as it is rendered. With -check it writes nothing, and fails where that is not what is there.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
helm=(go -C "$repository" tool -modfile=.tools/helm/go.mod helm)

# render DIR: everything below DIR, which is deploy/ or a copy of it.
render() {
  local from=$1 part out
  for part in crd rbac admission; do
    rm -rf "$from/chart/files/$part"
    mkdir -p "$from/chart/files/$part"
    cp "$from/$part"/*.yaml "$from/chart/files/$part/"
  done
  out=$(mktemp -d)
  # shellcheck disable=SC2064 # The directory is known now.
  trap "rm -rf '$out'" RETURN
  "${helm[@]}" template millrace "$from/chart" --namespace millrace-system --set createNamespace=true,monitoring.prometheus=true,monitoring.dashboard=true \
    --api-versions admissionregistration.k8s.io/v1/MutatingAdmissionPolicy --output-dir "$out" >/dev/null
  mkdir -p "$from/kustomize/publish-secrets"
  rm -f "$from"/kustomize/{base,monitoring,publish-secrets}/*.yaml
  mv "$out"/millrace/templates/{monitoring,dashboard}.yaml "$from/kustomize/monitoring/"
  mv "$out"/millrace/templates/publish-secrets.yaml "$from/kustomize/publish-secrets/"
  mv "$out"/millrace/templates/*.yaml "$from/kustomize/base/"
  kustomization "$from/kustomize/base"
  kustomization "$from/kustomize/monitoring" ../base
  kustomization "$from/kustomize/publish-secrets"
}

# kustomization DIR [RESOURCE...]: the list of what is in DIR, after the resources.
kustomization() {
  local dir=$1 name
  shift
  {
    printf '# Rendered from deploy/chart by make generate.\napiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n'
    for name in "$@" $(cd "$dir" && LC_ALL=C ls -- *.yaml); do
      [[ $name == kustomization.yaml ]] || printf '  - %s\n' "$name"
    done
  } >"$dir/kustomization.yaml.new"
  mv "$dir/kustomization.yaml.new" "$dir/kustomization.yaml"
}

case ${1:-} in
-check)
  fresh=$(mktemp -d)
  trap 'rm -rf "$fresh"' EXIT
  cp -r "$repository"/deploy/. "$fresh"
  render "$fresh"
  diff -r "$repository/deploy/chart/files" "$fresh/chart/files" && diff -r "$repository/deploy/kustomize" "$fresh/kustomize" ||
    { echo 'the chart has changed: run make generate' >&2; exit 1; }
  ;;
'') render "$repository/deploy" ;;
*)
  echo "render.sh takes no argument or -check, not \"$1\"" >&2
  exit 2
  ;;
esac
