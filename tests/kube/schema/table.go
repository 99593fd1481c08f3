package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// special are the types whose JSON is not that of their fields.
var special = map[reflect.Type]string{
	reflect.TypeFor[metav1.Time]():                                       "@time",
	reflect.TypeFor[metav1.MicroTime]():                                  "@microtime",
	reflect.TypeFor[metav1.Duration]():                                   "@duration",
	reflect.TypeFor[metav1.FieldsV1]():                                   "@json",
	reflect.TypeFor[runtime.RawExtension]():                              "@json",
	reflect.TypeFor[apiextensionsv1.JSON]():                              "@json",
	reflect.TypeFor[apiextensionsv1beta1.JSON]():                         "@json",
	reflect.TypeFor[resource.Quantity]():                                 "@quantity",
	reflect.TypeFor[intstr.IntOrString]():                                "@intorstring",
	reflect.TypeFor[apiextensionsv1.JSONSchemaPropsOrArray]():            "@schemaorarray",
	reflect.TypeFor[apiextensionsv1.JSONSchemaPropsOrBool]():             "@schemaorbool",
	reflect.TypeFor[apiextensionsv1.JSONSchemaPropsOrStringArray]():      "@schemaorstrings",
	reflect.TypeFor[apiextensionsv1beta1.JSONSchemaPropsOrArray]():       "@schemaorarray",
	reflect.TypeFor[apiextensionsv1beta1.JSONSchemaPropsOrBool]():        "@schemaorbool",
	reflect.TypeFor[apiextensionsv1beta1.JSONSchemaPropsOrStringArray](): "@schemaorstrings",
}

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	message       = reflect.TypeFor[interface{ MarshalToSizedBuffer([]byte) (int, error) }]()
)

// table collects types by name, as their lines.
type table struct{ types map[string][]string }

func writeTable(out io.Writer) {
	all, types := knownTypes(), table{types: map[string][]string{}}
	fmt.Fprintf(out, "# Kubernetes' built-in kinds and their types, written by tests/kube/schema from k8s.io/api %s.\n", version("k8s.io/api"))
	for _, kind := range kinds(all) {
		goType := all.AllKnownTypes()[kind]
		types.add(goType)
		fmt.Fprintf(out, "kind %s %s %s\n", kind.GroupVersion(), kind.Kind, nameOf(goType))
	}
	for _, name := range slices.Sorted(maps.Keys(types.types)) {
		fmt.Fprintf(out, "type %s\n", name)
		for _, line := range types.types[name] {
			fmt.Fprintln(out, line)
		}
	}
}

func version(module string) string {
	info, _ := debug.ReadBuildInfo()
	for _, part := range info.Deps {
		if part.Path == module {
			return part.Version
		}
	}
	return "of unknown version"
}

// nameOf is the package's last two parts and the type: core/v1.Pod.
func nameOf(goType reflect.Type) string {
	parts := strings.Split(goType.PkgPath(), "/")
	return strings.Join(parts[max(0, len(parts)-2):], "/") + "." + goType.Name()
}

// add puts a struct and what it is made of into the table.
func (t table) add(goType reflect.Type) {
	name := nameOf(goType)
	if _, there := t.types[name]; there {
		return
	}
	t.types[name] = nil
	var lines []string
	for index := range goType.NumField() {
		field := goType.Field(index)
		number, has := protobufNumber(field)
		tags := strings.Split(field.Tag.Get("json"), ",")
		if !has || tags[0] == "-" {
			continue
		}
		jsonName, flags := tags[0], ""
		for _, tag := range tags[1:] {
			switch tag {
			case "omitempty":
				flags += "?"
			case "omitzero":
				if !strings.HasPrefix(special[field.Type], "@") {
					panic(name + "." + field.Name + " is left out when zero, which only special types can be")
				}
				flags += "0"
			case "inline":
			default:
				panic(name + "." + field.Name + ": JSON tag " + tag)
			}
		}
		if jsonName == "" {
			if !field.Anonymous {
				panic(name + "." + field.Name + " has no JSON name")
			}
			jsonName = "."
		}
		lines = append(lines, fmt.Sprintf("%s %s%s %s", number, jsonName, flags, t.expression(field.Type, name+"."+field.Name)))
	}
	t.types[name] = lines
}

func protobufNumber(field reflect.StructField) (string, bool) {
	parts := strings.Split(field.Tag.Get("protobuf"), ",")
	if len(parts) < 2 {
		return "", false
	}
	return parts[1], true
}

// expression says what a field holds: scalar or type, behind `*` (may be absent), `[]` or `map:`.
func (t table) expression(goType reflect.Type, where string) string {
	if name, is := special[goType]; is {
		if strings.HasPrefix(name, "@schemaor") {
			field, _ := goType.FieldByName("Schema")
			t.add(field.Type.Elem())
			return name + "(" + nameOf(field.Type.Elem()) + ")"
		}
		return name
	}
	if goType.Kind() != reflect.Pointer && goType.Implements(jsonMarshaler) {
		panic(where + " has JSON of its own")
	}
	switch goType.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Int32, reflect.Int64:
		return "int"
	case reflect.Float64:
		return "double"
	case reflect.Pointer:
		return "*" + t.expression(goType.Elem(), where)
	case reflect.Slice:
		element := t.expression(goType.Elem(), where)
		switch {
		case goType.Elem().Kind() == reflect.Uint8:
			return "bytes"
		case reflect.PointerTo(goType).Implements(message) && element == "string":
			return "@strings"
		}
		return "[]" + element
	case reflect.Map:
		if goType.Key().Kind() != reflect.String {
			panic(where + " is a map by something else than strings")
		}
		return "map:" + t.expression(goType.Elem(), where)
	case reflect.Uint8:
		return "byte"
	case reflect.Struct:
		t.add(goType)
		return nameOf(goType)
	}
	panic(where + " is of kind " + goType.Kind().String())
}
