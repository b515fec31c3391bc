//! A JSON value with expressions in its strings.

use std::sync::Arc;

use serde_json::Value;

use super::{Expression, Scope, Uses, has_expression};

/// A value that is known when its expressions are.
#[derive(Debug)]
pub(crate) enum Template {
    /// Canonical JSON text.
    Json(String),
    Expression(Arc<Expression>),
    List(Vec<Template>),
    /// By name, sorted.
    Table(Vec<(String, Template)>),
}

/// What is wrong, and where in the value: keys and positions from the outside in.
pub(crate) struct TemplateFault {
    pub path: Vec<String>,
    pub why: String,
}

impl Template {
    /// Compiles every string that has an expression in it.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn compile(value: &Value) -> Result<Template, TemplateFault> {
        let inside = |key: String| {
            move |mut fault: TemplateFault| {
                fault.path.insert(0, key);
                fault
            }
        };
        let template = match value {
            Value::String(text) if has_expression(text) => {
                let wrong = |why| TemplateFault { path: Vec::new(), why };
                Template::Expression(Expression::compile(text).map_err(wrong)?)
            }
            Value::Array(items) => {
                let items = items.iter().enumerate();
                let compile =
                    |(at, item): (usize, &Value)| Template::compile(item).map_err(inside(at.to_string()));
                Template::List(items.map(compile).collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => {
                let compile = |(key, field): (&String, &Value)| {
                    Ok((key.clone(), Template::compile(field).map_err(inside(key.clone()))?))
                };
                Template::Table(fields.iter().map(compile).collect::<Result<_, _>>()?)
            }
            plain => Template::Json(plain.to_string()),
        };
        let plain = |part: &Template| matches!(part, Template::Json(_));
        let all_plain = match &template {
            Template::List(items) => items.iter().all(plain),
            Template::Table(fields) => fields.iter().all(|(_, field)| plain(field)),
            Template::Json(_) | Template::Expression(_) => false,
        };
        Ok(if all_plain { Template::Json(value.to_string()) } else { template })
    }

    /// Everything that its expressions name.
    pub fn uses(&self) -> Uses {
        let mut uses = Uses::default();
        self.collect_uses(&mut uses);
        uses
    }

    fn collect_uses(&self, uses: &mut Uses) {
        match self {
            Template::Json(_) => {}
            Template::Expression(expression) => uses.add(expression.uses()),
            Template::List(items) => items.iter().for_each(|item| item.collect_uses(uses)),
            Template::Table(fields) => fields.iter().for_each(|(_, field)| field.collect_uses(uses)),
        }
    }

    /// Its value as canonical JSON.
    ///
    /// # Errors
    /// Why an expression has none.
    pub fn json(&self, scope: &Scope) -> Result<String, String> {
        Ok(match self {
            Template::Json(text) => text.clone(),
            Template::Expression(expression) => expression.json(scope)?,
            Template::List(items) => {
                let items: Vec<String> =
                    items.iter().map(|item| item.json(scope)).collect::<Result<_, _>>()?;
                format!("[{}]", items.join(","))
            }
            Template::Table(fields) => {
                let field = |(key, field): &(String, Template)| {
                    Ok::<_, String>(format!("{}:{}", Value::from(key.as_str()), field.json(scope)?))
                };
                let fields: Vec<String> = fields.iter().map(field).collect::<Result<_, _>>()?;
                format!("{{{}}}", fields.join(","))
            }
        })
    }

    /// The only expression that it is.
    pub fn as_expression(&self) -> Option<&Expression> {
        match self {
            Template::Expression(expression) => Some(expression),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expressions_may_be_anywhere() {
        let value = json!({"b": [1, "{{ index }}"], "a": {"x": "n{{ index }}"}, "c": "plain"});
        let template = Template::compile(&value).ok().unwrap();
        let mut scope = Scope::default();
        scope.index(7);
        assert_eq!(template.json(&scope).unwrap(), r#"{"a":{"x":"n7"},"b":[1,7],"c":"plain"}"#);
        assert_eq!(template.uses().names.len(), 1);
        assert!(matches!(Template::compile(&json!([1, {"a": "b"}])), Ok(Template::Json(_))));
    }

    #[test]
    fn a_fault_says_where_it_is() {
        let fault = Template::compile(&json!({"a": [0, "{{ nope }}"]})).err().unwrap();
        assert_eq!(fault.path, ["a", "1"]);
        assert!(fault.why.contains("nope"));
    }
}
