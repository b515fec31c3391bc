//! One text with expressions in it: what it names, found before anything runs, and its value.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::LazyLock;

use minijinja::value::ValueKind;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};

use super::items::Items;
use super::range::Range;
use super::scan::{Piece, depth, name_ids, pieces};
use super::scope::Scope;
use super::{FUEL, LIMIT_BYTES, filters};

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.add_function("range", Range::call);
    filters::add_to(&mut environment);
    environment.remove_global("debug");
    // With it a loop could double a text in each step, and steps are all that is counted.
    environment.remove_global("namespace");
    environment
});

/// A text with expressions in it.
pub(crate) struct Expression {
    text: String,
    code: Code,
    uses: Uses,
    /// Ids of nodes that are named in quotes.
    ids: Vec<String>,
}

enum Code {
    /// The whole text is one expression: its value keeps its type.
    Alone(minijinja::Expression<'static, 'static>),
    /// Values become text.
    Mixed(minijinja::Template<'static, 'static>),
}

thread_local! {
    /// A manifest from a machine may say the same a million times.
    static KNOWN: RefCell<HashMap<String, Arc<Expression>>> = RefCell::default();
}

/// What an expression names.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Uses {
    /// Nodes whose results it reads.
    pub results: BTreeSet<String>,
    /// Nodes whose outcomes it reads.
    pub outcomes: BTreeSet<String>,
    pub vars: BTreeSet<String>,
    /// It takes `vars` as a whole.
    pub all_vars: bool,
    /// `item`, `index`, `result`, `history`, `last_output`.
    pub names: BTreeSet<&'static str>,
}

/// Operations inside each other, and tags in a text.
const LIMIT_DEPTH: usize = 1000;

/// Characters of an expression in a message.
const SHOWN: usize = 500;

/// The names that stand for one value each.
const NAMES: [&str; 5] = ["item", "index", "result", "history", "last_output"];

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Expression {
    /// Compiles a text that has expressions in it.
    ///
    /// # Errors
    /// What is wrong with it: its syntax, or a name that no expression knows.
    pub fn compile(text: &str) -> Result<Arc<Expression>, String> {
        if let Some(known) = KNOWN.with_borrow(|known| known.get(text).cloned()) {
            return Ok(known);
        }
        let compiled = Arc::new(Expression::new(text)?);
        KNOWN.with_borrow_mut(|known| known.insert(text.into(), compiled.clone()));
        Ok(compiled)
    }

    fn new(text: &str) -> Result<Expression, String> {
        let pieces = pieces(text);
        check(&pieces).map_err(|why| format!("`{}`: {why}", beginning(text)))?;
        let mut ids = Vec::new();
        let blank = |piece: &&Piece| !matches!(piece, Piece::Text(text) if text.trim().is_empty());
        let said: Vec<&Piece> = pieces.iter().filter(blank).collect();
        let code = match said[..] {
            [Piece::Value(code)] => {
                let code = name_ids(code.trim_matches(['-', '+']), &mut ids);
                ENVIRONMENT.compile_expression_owned(code).map(Code::Alone)
            }
            _ => {
                let mut source = String::new();
                for piece in &pieces {
                    match piece {
                        Piece::Text(text) => source += text,
                        Piece::Value(code) => source += &format!("{{{{{}}}}}", name_ids(code, &mut ids)),
                        Piece::Other(code) => source += &name_ids(code, &mut ids),
                    }
                }
                // It is needed until the end of the process, as the manifest is.
                let source: &'static str = Box::leak(source.into_boxed_str());
                ENVIRONMENT.template_from_str(source).map(Code::Mixed)
            }
        };
        let code = code.map_err(|error| format!("`{}`: {}", beginning(text), reason(&error)))?;
        let names = match &code {
            Code::Alone(expression) => expression.undeclared_variables(true),
            Code::Mixed(template) => template.undeclared_variables(true),
        };
        let uses = Uses::of(names, &ids).map_err(|why| format!("`{}`: {why}", beginning(text)))?;
        Ok(Expression { text: text.into(), code, uses, ids })
    }

    /// Forgets what was compiled, for who compiles millions of texts.
    #[cfg(any(test, fuzzing))]
    pub fn forget_all() {
        KNOWN.with_borrow_mut(HashMap::clear);
    }

    /// The id of the node whose result this text is, if it is nothing else.
    pub fn whole_result(text: &str) -> Option<String> {
        let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?.trim();
        let path = inner.strip_prefix("nodes")?.strip_suffix(".result")?;
        let mut ids = Vec::new();
        if name_ids(&format!("nodes{path}"), &mut ids) == "nodes.id__0" {
            return ids.pop();
        }
        let id = path.strip_prefix('.')?;
        let plain = !id.is_empty() && !id.contains(['{', '}', ' ', '|', '(', '[', '"', '\'']);
        (plain && !id.contains("nodes.") && !id.contains(".result")).then(|| id.into())
    }

    /// As it stands in the manifest.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn uses(&self) -> &Uses {
        &self.uses
    }

    /// Whether it is one expression and nothing else, so that its value may be of any type.
    pub fn keeps_type(&self) -> bool {
        matches!(self.code, Code::Alone(_))
    }

    /// Its value as JSON.
    ///
    /// # Errors
    /// Why it has none.
    pub fn json(&self, scope: &Scope) -> Result<String, String> {
        let root = scope.root(&self.ids);
        match &self.code {
            Code::Alone(expression) => {
                let value = self.defined(expression.eval(root))?;
                let mut out = Bounded(Vec::new());
                serde_json::to_writer(&mut out, &value).map_err(|error| self.wrong(error.to_string()))?;
                String::from_utf8(out.0).map_err(|error| self.wrong(error.to_string()))
            }
            Code::Mixed(template) => {
                let mut out = Bounded(Vec::new());
                template.render_captured_to(root, &mut out).map_err(|error| self.wrong(reason(&error)))?;
                Ok(serde_json::Value::from(String::from_utf8_lossy(&out.0)).to_string())
            }
        }
    }

    /// Whether its value is true, as Jinja sees it: not false, 0, empty or null.
    ///
    /// # Errors
    /// Why it has none.
    pub fn is_true(&self, scope: &Scope) -> Result<bool, String> {
        match &self.code {
            Code::Alone(expression) => Ok(self.defined(expression.eval(scope.root(&self.ids)))?.is_true()),
            Code::Mixed(_) => {
                Ok(!matches!(self.json(scope)?.trim_matches('"').trim(), "" | "false" | "False"))
            }
        }
    }

    /// The items that it lists.
    ///
    /// # Errors
    /// When it has no value, or one that is no list.
    pub fn items(&self, scope: &Scope) -> Result<Items, String> {
        if let Code::Alone(expression) = &self.code {
            let value = self.defined(expression.eval(scope.root(&self.ids)))?;
            if let Some(range) = value.downcast_object_ref::<Range>() {
                return Ok(Items::of_range(range));
            }
        }
        Items::of_list(self.json(scope)?).map_err(|why| self.wrong(why))
    }

    fn defined(&self, value: Result<Value, minijinja::Error>) -> Result<Value, String> {
        let value = value.map_err(|error| self.wrong(reason(&error)))?;
        if has_undefined(&value) {
            Err(self.wrong("it is undefined, or a part of it".into()))
        } else {
            Ok(value)
        }
    }

    fn wrong(&self, why: String) -> String {
        format!("`{}`: {why}", beginning(self.text.trim()))
    }
}

/// As much of a text as a message shows.
fn beginning(text: &str) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} ...", &text[..end]).into(),
        None => text.into(),
    }
}

/// What would go too deep for the compiler's stack, or has a tag that there is not.
fn check(pieces: &[Piece]) -> Result<(), String> {
    let mut tags = 0;
    for piece in pieces {
        let code = match piece {
            Piece::Text(_) => continue,
            Piece::Value(code) => code,
            Piece::Other(code) => {
                check_tag(code)?;
                tags += 1;
                code
            }
        };
        if tags > LIMIT_DEPTH || depth(code) > LIMIT_DEPTH {
            return Err(format!(
                "it has more than {LIMIT_DEPTH} operations inside each other, or tags: let several nodes do it"
            ));
        }
    }
    Ok(())
}

/// Tags with which a text could call itself, or keep what it has made from one step of a loop to the next, are none: it
/// would take all memory in a few steps.
fn check_tag(code: &str) -> Result<(), String> {
    let Some(code) = code.strip_prefix("{%") else { return Ok(()) };
    let code = code.trim_start_matches(['-', '+']).trim_start();
    let word = code.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    let recursive = || code.trim_end_matches("%}").trim_end_matches(['-', '+', ' ']).ends_with("recursive");
    match word {
        "set" if !code.contains('=') => Err("`set` needs a value here: {% set x = ... %}".into()),
        "for" if recursive() => Err("a loop cannot call itself here".into()),
        "if" | "elif" | "else" | "endif" | "for" | "endfor" | "set" | "raw" | "endraw" | "" => Ok(()),
        _ => Err(format!("there is no tag `{word}` here, only `if`, `for`, `set` and `raw`")),
    }
}

impl Uses {
    fn of(paths: impl IntoIterator<Item = String>, ids: &[String]) -> Result<Uses, String> {
        let mut uses = Uses::default();
        for path in paths {
            let mut steps = path.split('.');
            let (first, second, third) = (steps.next().unwrap_or_default(), steps.next(), steps.next());
            match (first, second) {
                ("vars", Some(name)) => drop(uses.vars.insert(name.into())),
                ("vars", None) => uses.all_vars = true,
                ("nodes", Some(name)) => {
                    let alias = name.strip_prefix("id__").and_then(|n| ids.get(n.parse::<usize>().ok()?));
                    let id = alias.map_or(name, String::as_str).to_string();
                    match third {
                        Some("result") => drop(uses.results.insert(id)),
                        Some("outcome") => drop(uses.outcomes.insert(id)),
                        _ => {
                            return Err(format!(
                                "of node `{id}` there is `nodes.{id}.result` and `nodes.{id}.outcome` (an id that is no plain word is written in quotes: nodes[\"{id}-1\"].result)"
                            ));
                        }
                    }
                }
                ("nodes", None) => {
                    return Err("a node is named by its id: nodes.ID.result or nodes[\"ID\"].result".into());
                }
                _ => match NAMES.iter().find(|name| **name == first) {
                    Some(name) => drop(uses.names.insert(*name)),
                    None if ENVIRONMENT.globals().any(|(name, _)| name == first) => {}
                    None => {
                        let known = NAMES.into_iter().chain(["vars", "nodes", "range"]);
                        let null = matches!(first, "null" | "nil" | "None").then_some("none");
                        let hint = null
                            .or_else(|| crate::manifest::nearest(first, known))
                            .map_or(format!("; a variable is `vars.{first}`"), |near| {
                                format!("; did you mean `{near}`?")
                            });
                        return Err(format!("there is no name `{first}`{hint}"));
                    }
                },
            }
        }
        Ok(uses)
    }

    /// Adds what another expression names.
    pub fn add(&mut self, other: &Uses) {
        self.results.extend(other.results.iter().cloned());
        self.outcomes.extend(other.outcomes.iter().cloned());
        self.vars.extend(other.vars.iter().cloned());
        self.names.extend(other.names.iter());
        self.all_vars |= other.all_vars;
    }
}

/// Whether it, or a part of it, is no value: that would come out as null.
fn has_undefined(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Undefined => true,
        ValueKind::Seq => match value.downcast_object_ref::<Range>() {
            Some(_) => false,
            None => value.try_iter().is_ok_and(|mut items| items.any(|item| has_undefined(&item))),
        },
        ValueKind::Map => value.try_iter().is_ok_and(|mut keys| {
            keys.any(|key| value.get_item(&key).is_ok_and(|field| has_undefined(&field)))
        }),
        _ => false,
    }
}

fn reason(error: &minijinja::Error) -> String {
    match error.kind() {
        ErrorKind::OutOfFuel => format!("it took more than {FUEL} steps"),
        ErrorKind::WriteFailure => {
            format!("it makes more than {} of text", crate::text::bytes(LIMIT_BYTES as u64))
        }
        kind => error.detail().map_or_else(|| kind.to_string(), String::from),
    }
}

/// Takes so much and no more.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LIMIT_BYTES {
            let limit = crate::text::bytes(LIMIT_BYTES as u64);
            return Err(io::Error::other(format!("its value is longer than {limit}")));
        }
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        let mut scope = Scope::default();
        scope.var("k", b"3").unwrap();
        scope.var("words", br#"["a","b"]"#).unwrap();
        scope.result("a-1", br#"{"ids":[7,8],"scores":[0.5,0.25]}"#).unwrap();
        scope.outcome("a-1", "failed");
        scope.set("item", br#"{"x":1}"#).unwrap();
        scope.index(5);
        scope
    }

    fn json(text: &str) -> Result<String, String> {
        Expression::compile(text)?.json(&scope())
    }

    #[test]
    fn alone_it_keeps_its_type_and_inside_text_it_becomes_text() {
        assert_eq!(json("{{ vars.k }}").unwrap(), "3");
        assert_eq!(json(" {{ vars.k + 0.5 }} ").unwrap(), "3.5");
        assert_eq!(json("k is {{ vars.k }}").unwrap(), r#""k is 3""#);
        assert_eq!(json("{{ nodes['a-1'].result.ids }}").unwrap(), "[7,8]");
        assert_eq!(json("{{ item }}").unwrap(), r#"{"x":1}"#);
        assert_eq!(json("{{ {'b': none, 'a': index} }}").unwrap(), r#"{"a":5,"b":null}"#);
        assert_eq!(json("{% for w in vars.words %}<{{ w }}>{% endfor %}").unwrap(), r#""<a><b>""#);
        assert_eq!(json("{{ '{{' }}").unwrap(), r#""{{""#);
    }

    #[test]
    fn conditions_are_true_or_false_or_wrong() {
        let is = |text: &str| Expression::compile(text)?.is_true(&scope());
        assert_eq!(is("{{ nodes['a-1'].outcome == 'failed' }}"), Ok(true));
        assert_eq!(is("{{ vars.k > 3 }}"), Ok(false));
        assert!(is("{{ vars.none_such > 3 }}").is_err());
        assert!(is("{{ vars.none_such }}").unwrap_err().contains("undefined"));
        assert!(json("{{ [1, {'a': vars.none_such}] }}").unwrap_err().contains("undefined"));
        assert_eq!(
            json("{{ [vars.none_such | default(3), vars.none_such is defined] }}").unwrap(),
            "[3,false]"
        );
    }

    #[test]
    fn what_it_names_is_known_before() {
        let uses =
            Expression::compile("{{ nodes.a.result.x + vars.k }} {{ index }} {{ nodes['b c'].outcome }}")
                .unwrap();
        let uses = &uses.uses;
        assert_eq!(uses.results, BTreeSet::from(["a".to_string()]));
        assert_eq!(uses.outcomes, BTreeSet::from(["b c".to_string()]));
        assert_eq!(uses.vars, BTreeSet::from(["k".to_string()]));
        assert_eq!(uses.names, BTreeSet::from(["index"]));
        for (text, why) in [
            ("{{ itm }}", "did you mean `item`"),
            ("{{ k }}", "`vars.k`"),
            ("{{ nodes.a }}", "nodes.a.result"),
            ("{{ nodes[index].result }}", "named by its id"),
            ("{{ vars.k", "unexpected end"),
            ("{{ 1 + }}", "unexpected"),
            ("{{ item | nosuch }}", "nosuch"),
        ] {
            let error = Expression::compile(text).err().unwrap_or_else(|| format!("{text} compiles"));
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_whole_result_is_told_from_an_expression() {
        let whole = Expression::whole_result;
        assert_eq!(whole("{{ nodes.a-1.result }}").as_deref(), Some("a-1"));
        assert_eq!(whole(r#"{{nodes["a b"].result}}"#).as_deref(), Some("a b"));
        for no in [
            "{{ nodes.a.result.x }}",
            "{{ nodes.a.result + nodes.b.result }}",
            "x {{ nodes.a.result }}",
            "{{ nodes.a.outcome }}",
        ] {
            assert_eq!(whole(no), None, "{no}");
        }
    }

    #[test]
    fn nothing_is_endless() {
        assert!(json("{{ range(0, 100000000) | list }}").is_err());
        assert!(
            json("{% for i in range(0, 100000000) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}").is_err()
        );
        for doubling in [
            "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
            "{% macro m(a) %}{{ m(a ~ a) }}{% endmacro %}{{ m('x') }}",
            "{% for x in ['x'] recursive -%}{{ loop([x ~ x]) }}{% endfor %}",
            "{% set x %}{% for i in range(9999999) %}xxxxxxxxxxxx{% endfor %}{% endset %}{{ x | length }}",
            "{%- filter upper %}x{% endfilter %}",
        ] {
            assert!(json(doubling).is_err(), "{doubling}");
        }
        for deep in
            ["-", "not ", "1 ~ ", "1 if 1 else "].map(|part| format!("{{{{ {}1 }}}}", part.repeat(100_000)))
        {
            let error = json(&deep).unwrap_err();
            assert!(error.contains("inside each other") && error.len() < 1000, "{error}");
        }
        assert!(json(&"{% if vars.k %}".repeat(50_000)).unwrap_err().contains("inside each other"));
        assert!(json(&format!("{{{{ [{}1] }}}}", "-1.5, ".repeat(100_000))).is_ok());
        assert!(json(&format!("{{{{ 1{} }}}}", " + 1".repeat(900))).is_ok_and(|sum| sum == "901"));
        assert_eq!(json("{%- set x = vars.k %}{% if x == 3 %}{{ x }}{% endif -%}").unwrap(), r#""3""#);
        assert!(json("{{ [range(0, 100000000)] }}").unwrap_err().contains("at most 1,000,000"));
    }

    #[test]
    fn ranges_and_lists_are_items() {
        let items = |text: &str| Expression::compile(text)?.items(&scope());
        assert_eq!(items("{{ range(5, 1000000) }}"), Ok(Items::Range { start: 5, step: 1, len: 999_995 }));
        let down = items("{{ range(10, 0, -3) }}").unwrap();
        assert_eq!((0..down.len()).map(|i| down.get(i)).collect::<Vec<_>>(), ["10", "7", "4", "1"]);
        assert_eq!(items("{{ vars.words }}").unwrap().get(1), r#""b""#);
        assert!(items("{{ vars.k }}").is_err());
    }
}
