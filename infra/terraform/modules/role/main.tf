# The role of one job on EMR Serverless: what it may do, and nothing else.

variable "name" { type = string }
variable "account" { type = string }

variable "statements" {
  description = "What it may do. `only` are conditions: a key of IAM's and the value that it must have."
  type = list(object({
    actions   = list(string)
    resources = list(string)
    only      = optional(map(string), {})
  }))
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["emr-serverless.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [var.account]
    }
  }
}

data "aws_iam_policy_document" "this" {
  #checkov:skip=CKV_AWS_356:PutMetricData knows no resources, its namespace is a condition; DescribeLogGroups neither
  #checkov:skip=CKV_AWS_111:as above
  dynamic "statement" {
    for_each = var.statements
    content {
      actions   = statement.value.actions
      resources = statement.value.resources
      dynamic "condition" {
        for_each = statement.value.only
        content {
          test     = "StringEquals"
          variable = condition.key
          values   = [condition.value]
        }
      }
    }
  }
}

resource "aws_iam_role" "this" {
  name               = var.name
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "this" {
  name   = "job"
  role   = aws_iam_role.this.id
  policy = data.aws_iam_policy_document.this.json
}

output "arn" { value = aws_iam_role.this.arn }
