# Who may read what: the tags, filters and grants of `lakeops catalog grants export`, each item of that file a resource.
# It is the same as `lakeops catalog grants apply --execute` makes. Use one of the two.

variable "grants" {
  description = "What the file says."
  type        = any
}

data "aws_caller_identity" "this" {}

resource "aws_lakeformation_lf_tag" "this" {
  for_each = var.grants.tags
  key      = each.value.key
  values   = each.value.values
}

resource "aws_lakeformation_resource_lf_tags" "databases" {
  for_each = var.grants.databases
  database { name = each.value.database }
  dynamic "lf_tag" {
    for_each = each.value.tags
    content {
      key   = aws_lakeformation_lf_tag.this[lf_tag.key].key
      value = lf_tag.value
    }
  }
}

resource "aws_lakeformation_resource_lf_tags" "tables" {
  for_each = var.grants.tables
  table {
    database_name = each.value.database
    name          = each.value.table
  }
  dynamic "lf_tag" {
    for_each = each.value.tags
    content {
      key   = aws_lakeformation_lf_tag.this[lf_tag.key].key
      value = lf_tag.value
    }
  }
}

# Columns of a table that have the same tags are one resource.
resource "aws_lakeformation_resource_lf_tags" "columns" {
  for_each = var.grants.columns
  table_with_columns {
    database_name = each.value.database
    name          = each.value.table
    column_names  = each.value.columns
  }
  dynamic "lf_tag" {
    for_each = each.value.tags
    content {
      key   = aws_lakeformation_lf_tag.this[lf_tag.key].key
      value = lf_tag.value
    }
  }
}

resource "aws_lakeformation_data_cells_filter" "this" {
  for_each = var.grants.filters
  table_data {
    table_catalog_id = data.aws_caller_identity.this.account_id
    database_name    = each.value.database
    table_name       = each.value.table
    name             = each.value.name
    column_wildcard { excluded_column_names = each.value.without }
    row_filter {
      filter_expression = each.value.rows == "" ? null : each.value.rows
      dynamic "all_rows_wildcard" {
        for_each = each.value.rows == "" ? [1] : []
        content {}
      }
    }
  }
}

resource "aws_lakeformation_permissions" "tags" {
  for_each    = var.grants.grants
  principal   = each.value.principal
  permissions = each.value.permissions
  lf_tag_policy {
    resource_type = each.value.type
    dynamic "expression" {
      for_each = each.value.where
      content {
        key    = aws_lakeformation_lf_tag.this[expression.key].key
        values = expression.value
      }
    }
  }
}

resource "aws_lakeformation_permissions" "filters" {
  for_each    = var.grants.filter_grants
  principal   = each.value.principal
  permissions = each.value.permissions
  data_cells_filter {
    table_catalog_id = data.aws_caller_identity.this.account_id
    database_name    = each.value.database
    table_name       = each.value.table
    name             = each.value.name
  }
  depends_on = [aws_lakeformation_data_cells_filter.this]
}
